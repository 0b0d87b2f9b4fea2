"""Everything that touches LitServe's internals: messages, worker, spec, queue, server."""
