CREATE TABLE asr_jobs (
    id VARCHAR(32) NOT NULL,
    owner TEXT NOT NULL,
    state VARCHAR(16) NOT NULL,
    request TEXT NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    n_bytes BIGINT NOT NULL,
    created DOUBLE NOT NULL,
    not_before DOUBLE DEFAULT '0' NOT NULL,
    started DOUBLE,
    finished DOUBLE,
    lease VARCHAR(64),
    lease_until DOUBLE,
    attempts INTEGER DEFAULT '0' NOT NULL,
    stalls INTEGER DEFAULT '0' NOT NULL,
    decoded DOUBLE DEFAULT '0' NOT NULL,
    transcribed DOUBLE DEFAULT '0' NOT NULL,
    total DOUBLE,
    work_seconds DOUBLE DEFAULT '0' NOT NULL,
    n_chunks INTEGER,
    summary TEXT,
    error TEXT,
    PRIMARY KEY (id)
);

CREATE INDEX asr_jobs_in_wait ON asr_jobs (state, not_before);

CREATE INDEX asr_jobs_of_owner ON asr_jobs (owner, created, id);

CREATE UNIQUE INDEX asr_jobs_once ON asr_jobs (fingerprint) WHERE state IN ('queued', 'running', 'succeeded');

CREATE TABLE asr_callbacks (
    job VARCHAR(32) NOT NULL,
    url TEXT NOT NULL,
    id VARCHAR(32) NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    next_try DOUBLE DEFAULT '0' NOT NULL,
    PRIMARY KEY (job, url),
    FOREIGN KEY(job) REFERENCES asr_jobs (id) ON DELETE CASCADE
);

CREATE TABLE asr_chunks (
    job VARCHAR(32) NOT NULL,
    channel INTEGER NOT NULL,
    "index" INTEGER NOT NULL,
    seconds DOUBLE NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (job, channel, "index"),
    FOREIGN KEY(job) REFERENCES asr_jobs (id) ON DELETE CASCADE
);

CREATE TABLE asr_idempotency_keys (
    owner TEXT NOT NULL,
    "key" TEXT NOT NULL,
    job VARCHAR(32) NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    PRIMARY KEY (owner, "key"),
    FOREIGN KEY(job) REFERENCES asr_jobs (id) ON DELETE CASCADE
);

CREATE TABLE asr_segments (
    job VARCHAR(32) NOT NULL,
    "index" INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (job, "index"),
    FOREIGN KEY(job) REFERENCES asr_jobs (id) ON DELETE CASCADE
);
