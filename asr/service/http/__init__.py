"""HTTP below the routes: request bodies, middleware, connections, errors."""
