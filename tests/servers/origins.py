"""The origin servers, and how they are set up: nginx, apache2, lighttpd, haproxy, and of Python's
uvicorn and hypercorn.

All serve ``app.py`` below /app/: the last two themselves, the others as proxies in front of a
uvicorn. The first three serve the files of a ``Site`` too, and haproxy has them from nginx. Each
listens three times: for http, for https, and for connections that end after an idle second.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .daemons import Daemon, free_port, missing, need

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MAX_UPLOAD",
    "Grounds",
    "Origin",
    "apache",
    "haproxy",
    "hypercorn",
    "lighttpd",
    "nginx",
    "uvicorn",
]

HERE = Path(__file__).parent

MAX_UPLOAD = 4 * 1024 * 1024
"""Bytes of a request's body that the static servers take; 413 beyond."""

APACHE_MODULES = "mpm_event authz_core dir mime filter deflate brotli http2 proxy proxy_http ssl"


@dataclass(frozen=True)
class Grounds:
    """The set-up of servers.

    *make_folder*: makes a folder that belongs to whom servers run as. *site*: the files to serve.
    *pem*: a certificate and its key in one file.
    """

    make_folder: Callable[[str], Path]
    site: Path
    pem: Path


@dataclass(frozen=True)
class Origin:
    """A server: ``http``, ``https`` and ``brief`` are URLs without a slash at the end.

    ``brief`` closes connections that are idle for a second.
    """

    name: str
    daemons: tuple[Daemon, ...]
    http: str
    https: str
    brief: str

    @property
    def daemon(self) -> Daemon:
        """The one that ``http`` leads to."""
        return self.daemons[0]

    @property
    def has_files(self) -> bool:
        """Whether it serves the site, too."""
        return self.name not in ("uvicorn", "hypercorn")

    def __repr__(self) -> str:
        return f"<Origin {self.name}>"


def _origin(name: str, daemon: Daemon) -> Origin:
    plain, tls, brief = daemon.ports
    return Origin(
        name,
        (daemon,),
        f"http://127.0.0.1:{plain}",
        f"https://localhost:{tls}",
        f"http://127.0.0.1:{brief}",
    )


NGINX = """
daemon off;
pid nginx.pid;
error_log error.log;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    types {{ text/plain txt; text/html html; }}
    default_type application/octet-stream;
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 100000;
    client_max_body_size {max_upload};
    gzip on; gzip_types text/plain;
    ssl_certificate {pem}; ssl_certificate_key {pem};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:1m;
    root {site};
    absolute_redirect off;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl http2;
        keepalive_timeout 60;
        location /app/ {{
            proxy_pass http://127.0.0.1:{app};
            proxy_http_version 1.1;
        }}
        location /trailers {{
            proxy_pass http://127.0.0.1:{app}/app/chunks;
            proxy_http_version 1.1;
            add_trailer X-Rows 3;
        }}
    }}
    server {{
        listen 127.0.0.1:{brief};
        keepalive_timeout 1;
    }}
}}
"""


def nginx(grounds: Grounds, app: int) -> Origin:
    """Set up nginx; *app* is the port of the application."""
    program = need("nginx", "nginx-light")
    folder = grounds.make_folder("nginx")
    ports = [free_port() for _ in range(3)]
    config = folder / "nginx.conf"
    plain, tls, brief = ports
    config.write_text(
        NGINX.format(
            max_upload=MAX_UPLOAD,
            pem=grounds.pem,
            site=grounds.site,
            app=app,
            plain=plain,
            tls=tls,
            brief=brief,
        )
    )
    command = [program, "-p", f"{folder}/", "-c", str(config), "-e", f"{folder}/error.log"]
    return _origin("nginx", Daemon(command, folder, ports, logs=["error.log"]))


APACHE = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
Mutex file:{folder}
ServerName localhost
ErrorLog {folder}/error.log
LogLevel warn
{modules}
StartServers 1
ServerLimit 2
ThreadsPerChild 64
MinSpareThreads 16
MaxSpareThreads 128
MaxRequestWorkers 128
Listen 127.0.0.1:{plain}
Listen 127.0.0.1:{tls} https
Listen 127.0.0.1:{brief}
TypesConfig /dev/null
AddType text/plain .txt
AddType text/html .html
DocumentRoot {site}
DirectoryIndex index.html
<Directory {site}>
    Require all granted
</Directory>
Protocols h2 http/1.1
KeepAlive On
KeepAliveTimeout 60
LimitRequestBody {max_upload}
AddOutputFilterByType BROTLI_COMPRESS;DEFLATE text/plain
SSLProtocol -all +TLSv1.2 +TLSv1.3
SSLSessionCache none
ProxyPass /app/ http://127.0.0.1:{app}/app/ disablereuse=on
<VirtualHost 127.0.0.1:{plain}>
</VirtualHost>
<VirtualHost 127.0.0.1:{tls}>
    SSLEngine on
    SSLCertificateFile {pem}
</VirtualHost>
<VirtualHost 127.0.0.1:{brief}>
    KeepAliveTimeout 1
</VirtualHost>
"""


def apache(grounds: Grounds, app: int) -> Origin:
    """Set up apache2; see ``nginx``."""
    program = need("apache2", "apache2")
    folder = grounds.make_folder("apache2")
    ports = [free_port() for _ in range(3)]
    plain, tls, brief = ports
    config = folder / "apache.conf"
    config.write_text(
        APACHE.format(
            folder=folder,
            modules="\n".join(
                f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
                for name in APACHE_MODULES.split()
            ),
            max_upload=MAX_UPLOAD,
            pem=grounds.pem,
            site=grounds.site,
            app=app,
            plain=plain,
            tls=tls,
            brief=brief,
        )
    )
    command = [program, "-DFOREGROUND", "-f", str(config)]
    return _origin("apache2", Daemon(command, folder, ports, logs=["error.log"]))


LIGHTTPD = """
server.modules = ("mod_proxy", "mod_deflate", "mod_openssl")
server.document-root = "{site}"
server.bind = "127.0.0.1"
server.port = {plain}
server.errorlog = "{folder}/error.log"
server.upload-dirs = ("{folder}")
server.max-keep-alive-idle = 60
server.max-keep-alive-requests = 60000
server.max-request-size = {max_upload_kib}
server.stream-response-body = 1
index-file.names = ("index.html")
mimetype.assign = (".txt" => "text/plain", ".html" => "text/html", "" => "application/octet-stream")
deflate.mimetypes = ("text/plain")
deflate.allowed-encodings = ("gzip", "deflate")
ssl.pemfile = "{pem}"
ssl.openssl.ssl-conf-cmd = ("MinProtocol" => "TLSv1.2")
$SERVER["socket"] == "127.0.0.1:{tls}" {{
    ssl.engine = "enable"
}}
$SERVER["socket"] == "127.0.0.1:{brief}" {{
    server.max-keep-alive-idle = 1
}}
$HTTP["url"] =~ "^/app/" {{
    proxy.server = ("" => (("host" => "127.0.0.1", "port" => {app})))
}}
"""


def lighttpd(grounds: Grounds, app: int) -> Origin:
    """Set up lighttpd; see ``nginx``."""
    program = need("lighttpd", "lighttpd lighttpd-mod-deflate lighttpd-mod-openssl")
    folder = grounds.make_folder("lighttpd")
    ports = [free_port() for _ in range(3)]
    plain, tls, brief = ports
    config = folder / "lighttpd.conf"
    config.write_text(
        LIGHTTPD.format(
            folder=folder,
            max_upload_kib=MAX_UPLOAD // 1024,
            pem=grounds.pem,
            site=grounds.site,
            app=app,
            plain=plain,
            tls=tls,
            brief=brief,
        )
    )
    command = [program, "-D", "-f", str(config)]
    return _origin("lighttpd", Daemon(command, folder, ports, logs=["error.log"]))


HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    # Tests kill what is behind: a connection to it that is dead would end the client's.
    option http-server-close
    default_backend files
frontend main
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{tls} ssl crt {pem} alpn h2,http/1.1
    http-request return status 413 if {{ req.hdr_val(content-length) gt {max_upload} }}
    http-request return status 417 if {{ req.hdr(expect) -m found }} {{ path_beg /plainly/ }}
    compression algo gzip
    compression type text/plain
    compression offload
    use_backend app if {{ path_beg /app/ }}
frontend brief
    bind 127.0.0.1:{brief}
    timeout http-keep-alive 1s
backend files
    server nginx 127.0.0.1:{files}
backend app
    server uvicorn 127.0.0.1:{app}
"""


def haproxy(grounds: Grounds, app: int, files: int) -> Origin:
    """Set up haproxy; *files* is the port of a server that has the site."""
    program = need("haproxy", "haproxy")
    folder = grounds.make_folder("haproxy")
    ports = [free_port() for _ in range(3)]
    plain, tls, brief = ports
    config = folder / "haproxy.cfg"
    config.write_text(
        HAPROXY.format(
            max_upload=MAX_UPLOAD,
            pem=grounds.pem,
            app=app,
            files=files,
            plain=plain,
            tls=tls,
            brief=brief,
        )
    )
    # A master and a worker, as reloading needs.
    command = [program, "-W", "-f", str(config)]
    return _origin("haproxy", Daemon(command, folder, ports))


def uvicorn(grounds: Grounds) -> Origin:
    """Set up uvicorn: with httptools for http, with h11 for https and ``brief``, which are one."""

    def command(port: int, *options: str) -> list[str]:
        return ["uvicorn", "app:app", "--port", str(port), "--no-access-log", *options]

    tls = ["--ssl-certfile", str(grounds.pem), "--ssl-keyfile", str(grounds.pem)]
    plain, brief = free_port(), free_port()
    return _python_origin(
        grounds,
        command(plain, "--http", "httptools", "--timeout-keep-alive", "60"),
        command(brief, "--http", "h11", "--timeout-keep-alive", "1", *tls),
        (plain, brief),
    )


def hypercorn(grounds: Grounds) -> Origin:
    """Set up hypercorn; ``https`` and ``brief`` are one."""

    def command(port: int, *options: str) -> list[str]:
        return ["hypercorn", "app:app", "--bind", f"127.0.0.1:{port}", *options]

    tls = ["--certfile", str(grounds.pem), "--keyfile", str(grounds.pem)]
    plain, brief = free_port(), free_port()
    return _python_origin(
        grounds,
        command(plain, "--keep-alive", "60"),
        command(brief, "--keep-alive", "1", *tls),
        (plain, brief),
    )


def _python_origin(
    grounds: Grounds, plain: list[str], brief: list[str], ports: tuple[int, int]
) -> Origin:
    """Return an origin of two processes of this Python's, which run as this user."""
    name = plain[0]
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not here: pip install {name}")
    daemons = tuple(
        Daemon(
            [sys.executable, "-m", *command],
            grounds.make_folder(f"{name}-{port}"),
            [port],
            cwd=HERE,
            user=None,
        )
        for command, port in zip((plain, brief), ports, strict=True)
    )
    tls = f"https://localhost:{ports[1]}"
    return Origin(name, daemons, f"http://127.0.0.1:{ports[0]}", tls, tls)
