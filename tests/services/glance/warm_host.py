"""Runs within `uwsgi` before it begins (`warm.c`), or by itself for gunicorn: imports once, then forks for each host.

Standard input is a socket. `{"words", "env", "cwd"}` with the file of the log starts a host and is answered with its
pid; `{"poll": PID}` is answered with its exit status, null while it runs. The end of the socket is the end.
"""

import gc
import json
import os
import socket
import sys

words = [""]


def preload() -> None:
    """What every host imports. Glance looks for uWSGI in the first module of all, so each host imports that itself."""
    import glance_store
    from oslo_config import cfg

    for name in os.environ["WARM_MODULES"].split():
        __import__(name)
    glance_store.register_opts(cfg.ConfigOpts())  # imports the drivers of all stores
    del sys.modules["glance.common.wsgi_app"]
    gc.freeze()  # no host looks through these again and again, nor copies the pages that they are on


def serve(channel: socket.socket) -> None:
    """Returns in each host."""
    while True:
        data, files, _, _ = socket.recv_fds(channel, 1 << 20, 1)
        if not data:
            os._exit(0)
        asked = json.loads(data)
        if "poll" in asked:
            pid, status = os.waitpid(asked["poll"], os.WNOHANG)
            channel.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
        elif os.fork():
            os.close(files[0])
        else:
            os.setsid()
            channel.send(json.dumps(os.getpid()).encode())
            become(channel, files[0], asked)
            return


def become(channel: socket.socket, log: int, asked: dict[str, object]) -> None:
    """This process is as a new one that was started like that."""
    channel.close()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((null, log, log)):
        os.dup2(fd, number)
    os.close(null)
    os.close(log)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    words[:] = asked["words"]
    del sys.argv


sys.argv = ["uwsgi"]
preload()
serve(socket.socket(fileno=0))
if words[0].endswith("gunicorn"):
    from gunicorn.app.wsgiapp import run

    sys.argv = words
    run()
