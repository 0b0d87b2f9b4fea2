"""uvicorn with our connections around an ASGI application, in a thread."""

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass

import uvicorn

from asr.service.run import SOCKETS
from tests.support.serving import wait_for


@dataclass
class Host:
    """A running server.

    Attributes:
        address: of its socket.
        server: uvicorn's server.
    """

    address: tuple
    server: uvicorn.Server

    @property
    def connections(self):
        """The open connections, HTTP and WebSocket."""
        return list(self.server.server_state.connections)

    def connect(self, receive_buffer=None):
        """A new socket. A small receive buffer fills at once when nobody reads."""
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(60)
        connection.connect(self.address)
        return connection

    def wait_closed(self, seconds=60):
        """Wait until no connection is open."""
        wait_for(lambda: not self.connections, seconds, "the end of all connections")


@contextlib.contextmanager
def hosting(app):
    """Serve an ASGI application."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, **SOCKETS)
        server = uvicorn.Server(config)

        def run():
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[listener]))

        thread = threading.Thread(target=run, name="uvicorn")
        thread.start()
        try:
            wait_for(lambda: server.started, 60, "the start")
            yield Host(listener.getsockname(), server)
        finally:
            server.force_exit = server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
