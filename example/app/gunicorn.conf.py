"""How gunicorn serves the simulator, on a laptop and in the image. PORT and BIND_HOST say where."""

import os
import sys

from checkout_simulator.settings import Settings, SettingsError

try:
    settings = Settings.from_env()
except SettingsError as error:
    # Here rather than in the worker: the message alone, no traceback, no restarts.
    sys.exit(str(error))

wsgi_app = "checkout_simulator.app:create_app()"
bind = f"{os.environ.get('BIND_HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"

# One worker: forked workers of SDK 1.43 share an instance id, and their counters would jump. Scale with replicas.
worker_class = "gthread"
workers = 1
threads = settings.threads
# An idle gthread worker still answers its heartbeat; a request never takes longer than its longest setting, 60 s.
timeout = 90
graceful_timeout = 20
# Longer than clients keep an idle connection (Google's load balancer: 600 s); a request on one that we closed is lost.
keepalive = 650

# It would be written to the home folder, which is read-only in the image.
control_socket_disable = True
# The simulator logs one line a request itself.
accesslog = None
