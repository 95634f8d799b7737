"""An empty S3 on a port that its own socket has chosen, so that nobody else can hold it; prints the port."""

import threading

from moto.server import ThreadedMotoServer

if __name__ == "__main__":
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(port, flush=True)
    threading.Event().wait()
