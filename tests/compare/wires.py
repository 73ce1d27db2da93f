"""TCP connections that can be cut: a partition between programs on one machine."""

import selectors
import socket
import threading


class Wire:
    """Forwards a port to another one until it is cut.

    A cut wire carries nothing and refuses nobody: what was sent into it is lost, as behind a
    pulled cable.
    """

    def __init__(self, target):
        self.target = target
        self.whole = True
        self.lock = threading.Lock()
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """From now on nothing passes."""
        self.whole = False

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            # Kept, so that a connection into a cut wire hangs rather than ends.
            with self.lock:
                self.open.append(near)
            if self.whole:
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    if not self.whole:
                        return
                    try:
                        data = key.fileobj.recv(65536)
                        if data:
                            key.data.sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        near.close()
                        far.close()
                        return


def free_port():
    """A port nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
