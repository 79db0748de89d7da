"""A program: the API, the scheduler and the volume service of a Cinder in one process, which need no message broker.

Cinder has a program for each; oslo.messaging's `fake:/` connects what is in one process.
"""

from cinder import monkey_patch

monkey_patch.patch()

import sys  # noqa: E402

import os_brick  # noqa: E402
from cinder import coordination, objects, rpc, service, version  # noqa: E402
from cinder.common import config, constants  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log  # noqa: E402
from oslo_service import service as oslo_service  # noqa: E402


def main() -> None:
    """Serve until the end."""
    objects.register_all()
    cfg.CONF(sys.argv[1:], project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    log.setup(cfg.CONF, "cinder")
    os_brick.setup(cfg.CONF)
    coordination.COORDINATOR.start()
    rpc.init(cfg.CONF)
    launcher = oslo_service.launch(cfg.CONF, service.Service.create(binary=constants.SCHEDULER_BINARY))
    for backend in cfg.CONF.enabled_backends:
        host, binary = f"{cfg.CONF.host}@{backend}", constants.VOLUME_BINARY
        launcher.launch_service(service.Service.create(host=host, service_name=backend, binary=binary))
    launcher.launch_service(service.WSGIService("osapi_volume"))
    launcher.wait()


if __name__ == "__main__":
    main()
