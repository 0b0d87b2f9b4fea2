"""The first hour with real weights: every open question about the model, answered by one command.

    make first-hour SERVER=http://gpu:8000 REFERENCES=folder OUT=folder
    python -m benchmarks.first_hour --server URL --references FOLDER --out FOLDER

docs/first-hour.md is the page for people who run it. In reading order: `references` finds the
clips, `arms` lists the ways to ask, `wire` changes and records requests, `bench` asks and stores
the answers. `checks`, `instructions`, `thinking`, `hints`, `chunks`, `quality` and `speed` each
measure one part and return a `section`. `plan` estimates the time, `run` does everything in
order, and `report` writes Markdown and JSON. `stand_in` is a server to rehearse with.
"""
