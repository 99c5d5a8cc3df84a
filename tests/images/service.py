"""A service as people package it: Debian's nginx, an entrypoint that prepares and then runs it, all quoting included.

It writes below /tmp alone and answers on a unix socket there, so that it runs read-only and as anybody.
"""

from tests.builders import directory, file
from tests.images.debian import install, quietly
from tests.images.workshop import Workshop

PARENT = "python"
SOCKET = "/tmp/service.socket"
GREETING = 'it\'s "served" for $USER'

ENTRYPOINT = """#!/bin/sh
set -e
mkdir -p /tmp/www
printf '%s|%s|%s' "$1" "$GREETING" "$(id -u)" > /tmp/www/index.html
shift
exec "$@"
"""
SETTINGS = f"""\
daemon off;
user root;
pid /tmp/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {{ listen unix:{SOCKET}; root /tmp/www; }}
}}
"""
CLIENT = f"""#!/usr/bin/python3
import socket, time
for _ in range(600):
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect("{SOCKET}")
        break
    except OSError:
        time.sleep(0.1)
connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
answer = b""
while data := connection.recv(65536):
    answer += data
print(answer.partition(b"\\r\\n\\r\\n")[2].decode())
"""


def build(workshop: Workshop) -> None:
    policy = workshop.root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # nothing is started here
    policy.chmod(0o755)
    install(workshop.root, "nginx")
    policy.unlink()
    workshop.seal("apt-get install nginx")
    words = [f"--config.cmd={word}" for word in ("nginx", "-c", "/etc/nginx/service.conf")]
    words += [f"--config.entrypoint={word}" for word in ("/usr/local/bin/entrypoint", "two words")]
    quietly("umoci", "config", "--no-history", "--image", workshop.image, *words)
    workshop.configure(env=f"GREETING={GREETING}")
    workshop.configure(workingdir="/", label="org.example.service=nginx", stopsignal="SIGQUIT")
    workshop.add(
        "the service",
        directory("usr/local/bin"),
        file("usr/local/bin/entrypoint", ENTRYPOINT.encode(), mode=0o755),
        file("usr/local/bin/client", CLIENT.encode(), mode=0o755),
        file("etc/nginx/service.conf", SETTINGS.encode()),
    )
