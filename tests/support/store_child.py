"""An empty S3 at an address, on a port that its own socket has chosen. Prints the port."""

import logging
import sys
import threading

from moto.server import ThreadedMotoServer

if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(sys.argv[1], 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(port, flush=True)
    threading.Event().wait()
