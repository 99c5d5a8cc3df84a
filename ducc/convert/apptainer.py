"""The files by which apptainer and singularity know how to run a root file system.

They are what those programs expect of a directory that they made themselves from the same image: environment,
entrypoint and command as data that no shell expands, labels, the image's config. Names are contract
(`docs/layout.md`); every text here is quoted so that any string of a config comes out of the shell as it went in.
"""

import json
import re
from collections.abc import Iterable, Mapping
from shlex import quote

from ducc.image.config import ImageConfig

ROOT = "/.singularity.d"

DIRECTORIES = ("/dev", "/proc", "/root", "/var/tmp", "/tmp", "/etc", "/sys", "/home")  # noqa: S108 - in images
EMPTY_FILES = ("/etc/hosts", "/etc/resolv.conf")  # a runtime binds the host's over them
LINKS: Mapping[str, str] = {
    "/singularity": ".singularity.d/runscript",
    "/.run": ".singularity.d/actions/run",
    "/.exec": ".singularity.d/actions/exec",
    "/.test": ".singularity.d/actions/test",
    "/.shell": ".singularity.d/actions/shell",
    "/environment": ".singularity.d/env/90-environment.sh",
}

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_SOURCE_ENVIRONMENT = """\
for script in /.singularity.d/env/*.sh; do
    if [ -f "$script" ]; then . "$script"; fi
done
"""

_EXEC = f'#!/bin/sh\n{_SOURCE_ENVIRONMENT}exec "$@"\n'

_RUN = f"""#!/bin/sh
{_SOURCE_ENVIRONMENT}
if [ -n "${{SINGULARITY_APPNAME:-}}" ]; then
    app_script="/scif/apps/$SINGULARITY_APPNAME/scif/runscript"
    if [ ! -x "$app_script" ]; then
        echo "no runscript for the application $SINGULARITY_APPNAME" >&2
        exit 1
    fi
    exec "$app_script" "$@"
fi
if [ -x /.singularity.d/runscript ]; then exec /.singularity.d/runscript "$@"; fi
exec /bin/sh "$@"
"""

_SHELL = f"""#!/bin/sh
{_SOURCE_ENVIRONMENT}
if [ -n "${{SINGULARITY_SHELL:-}}" ] && [ -x "$SINGULARITY_SHELL" ]; then exec "$SINGULARITY_SHELL" "$@"; fi
if [ -x /bin/bash ]; then
    PS1="$SINGULARITY_NAME> "
    export PS1
    exec /bin/bash --norc "$@"
fi
if [ -x /bin/sh ]; then exec /bin/sh "$@"; fi
echo "this image has no shell" >&2
exit 1
"""

_START = f"""#!/bin/sh
{_SOURCE_ENVIRONMENT}
if [ -x /.singularity.d/startscript ]; then exec /.singularity.d/startscript "$@"; fi
"""

_TEST = f"""#!/bin/sh
{_SOURCE_ENVIRONMENT}
if [ -n "${{SINGULARITY_APPNAME:-}}" ]; then
    app_test="/scif/apps/$SINGULARITY_APPNAME/scif/test"
    if [ -x "$app_test" ]; then exec "$app_test" "$@"; fi
    exit 0
fi
if [ -x /.singularity.d/test ]; then exec /.singularity.d/test "$@"; fi
echo "this image has no test: nothing is done"
exit 0
"""

_APPS = """#!/bin/sh
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    SCIF_APPS=/scif/apps
    SCIF_APPNAME="$SINGULARITY_APPNAME"
    SCIF_APPROOT="/scif/apps/$SCIF_APPNAME"
    SCIF_APPMETA="$SCIF_APPROOT/scif"
    SCIF_APPDATA="/scif/data/$SCIF_APPNAME"
    export SCIF_APPS SCIF_APPNAME SCIF_APPROOT SCIF_APPMETA SCIF_APPDATA
    if [ -d "$SCIF_APPROOT/bin" ]; then PATH="$SCIF_APPROOT/bin:$PATH"; export PATH; fi
    if [ -d "$SCIF_APPROOT/lib" ]; then
        LD_LIBRARY_PATH="$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        export LD_LIBRARY_PATH
    fi
    for app_environment in "$SCIF_APPMETA"/env/*.sh; do
        if [ -f "$app_environment" ]; then . "$app_environment"; fi
    done
fi
"""

_BASE = """#!/bin/sh
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
PS1="${PS1:-Apptainer> }"
export LD_LIBRARY_PATH PS1
"""

_RUNTIME_VARIABLES = """#!/bin/sh
if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"; fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"; fi
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then PATH="$SING_USER_DEFINED_PATH"; fi
export PATH
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
"""


def scripts(config: ImageConfig) -> dict[str, bytes]:
    """Executable files, by their path in the image."""
    texts = {
        "actions/exec": _EXEC,
        "actions/run": _RUN,
        "actions/shell": _SHELL,
        "actions/start": _START,
        "actions/test": _TEST,
        "env/01-base.sh": "#!/bin/sh\n# nothing is set before the image's own environment\n",
        "env/10-docker2singularity.sh": _environment(config.env),
        "env/90-environment.sh": "#!/bin/sh\n# the place for an environment of one's own\n",
        "env/95-apps.sh": _APPS,
        "env/99-base.sh": _BASE,
        "env/99-runtimevars.sh": _RUNTIME_VARIABLES,
        "runscript": _runscript(config.entrypoint or (), config.cmd or ()),
        "startscript": "#!/bin/sh\n",
    }
    return {f"{ROOT}/{name}": text.encode(errors="surrogateescape") for name, text in texts.items()}


def documents(config: ImageConfig) -> dict[str, bytes]:
    """Files that are data, by their path in the image."""
    labels = json.dumps(dict(config.labels), indent=1, sort_keys=True) + "\n"
    return {f"{ROOT}/labels.json": labels.encode(), f"{ROOT}/oci-config.json": config.raw}


def unusable_names(config: ImageConfig) -> list[str]:
    """Names in the environment that no shell can export; they are left out."""
    names = (entry.partition("=")[0] for entry in config.env)
    return [name for name in names if not _NAME.fullmatch(name)]


def _environment(entries: Iterable[str]) -> str:
    """PATH is what the image says; every other name is the caller's if the caller set it, else the image's.

    Of a name that stands there twice the last one counts, as to other runtimes.
    """
    lines = ["#!/bin/sh"]
    for entry in {entry.partition("=")[0]: entry for entry in entries}.values():
        name, assigned, value = entry.partition("=")
        if not _NAME.fullmatch(name):
            continue
        if not assigned:
            lines.append(f'export {name}="${{{name}:-}}"')
        elif name == "PATH":
            lines.append(f"export PATH={quote(value)}")
        else:
            lines.append(f'if [ -z "${{{name}:-}}" ]; then {name}={quote(value)}; fi')
            lines.append(f"export {name}")
    return "\n".join(lines) + "\n"


def _runscript(entrypoint: Iterable[str], cmd: Iterable[str]) -> str:
    """The entrypoint with the caller's arguments, or without any with the image's command; else a shell."""
    first, default = (" ".join(map(quote, words)) for words in (entrypoint, cmd))
    lines = ["#!/bin/sh"]
    if default:
        lines.append(f'if [ "$#" -eq 0 ]; then set -- {default}; fi')
    if first:
        lines.append(f'set -- {first} "$@"')
    lines.append('if [ "$#" -eq 0 ]; then set -- /bin/sh; fi')
    lines.append('exec "$@"')
    return "\n".join(lines) + "\n"
