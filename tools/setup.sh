#!/bin/sh
# Make a virtual environment with this package in it, editable.
#
#     tools/setup.sh demo|test|dev|bench [VENV]
#
#   demo   installs the package, and uvloop if possible
#   test   also installs the packages that the tests need
#   dev    also installs ruff, mypy, pyright, codespell and pytest-cov
#   bench  installs the package and as many as possible of the clients that it is compared with;
#          those of benchmarks/requirements-NAME.txt get an environment of their own, VENV-NAME
#
# This needs Python 3.11 or newer: $PYTHON if set, else the first on PATH that runs. It uses uv if
# uv is installed, else venv and pip. `make` calls this when pyproject.toml has changed.
set -eu

what=${1:?usage: tools/setup.sh demo|test|dev|bench [VENV]}
venv=${2:-.venv}
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# A name on PATH proves nothing (pyenv may have a broken shim there): run it.
version() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
# Of a folder, or of the nearest one above it that exists.
is_writable() { if [ -e "$1" ]; then [ -w "$1" ]; else is_writable "$(dirname "$1")"; fi; }
has_uv() { uv --version >/dev/null 2>&1; }

# Set $python, or end with one line that says what is wrong.
find_python() {
    too_old= without_venv= python=
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.14 python3.13 python3.12 python3.11 python3.15 python3 python
    fi
    for candidate; do
        if ! found=$(version "$candidate"); then
            [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON does not run"
        elif ! is_new_enough "$candidate"; then
            too_old="$too_old, $candidate is $found"
        elif has_uv || has_venv "$candidate"; then
            python=$candidate
            return
        else
            without_venv=$candidate
        fi
    done
    if [ -n "$without_venv" ]; then
        die "$without_venv has no venv module; on Debian and Ubuntu: apt install python3-venv"
    fi
    if [ -n "$too_old" ]; then
        die "Python 3.11 or newer is needed${too_old}; install one, or name it: make PYTHON=..."
    fi
    die "no Python was found on PATH; 3.11 or newer is needed, or name it: make PYTHON=..."
}

make_venv() {
    find_python
    say "making $venv with Python $(version "$python")"
    if has_uv; then
        uv venv --quiet --clear --python "$python" "$venv"
    else
        "$python" -m venv --clear "$venv"
    fi
}

install() {
    if has_uv; then
        uv pip install --quiet --python "$venv/bin/python" "$@"
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

# Make $venv, unless it exists and works.
ensure_venv() {
    if [ -x "$venv/bin/python" ] && is_new_enough "$venv/bin/python"; then
        has_uv || "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
            "$venv/bin/python" -m ensurepip >/dev/null
    elif [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        die "$venv exists, but is not a virtual environment"
    elif ! is_writable "$(dirname "$venv")"; then
        die "$venv cannot be made: the folder is read-only; name another place: make VENV=..."
    else
        make_venv
    fi
}

why_not() { grep -i error "$1" | sed -n '1{s/ (from versions.*//;s/^ERROR: //;p;}' | cut -c1-200; }

# Install the requirements in a file all at once; if that fails, one by one.
install_peers() {
    install --requirement "$1" 2>"$venv/peers.log" && rm "$venv/peers.log" && return
    sed 's/ *#.*//; /^$/d' "$1" | while read -r peer; do
        install "$peer" 2>"$venv/peers.log" ||
            say "$peer could not be installed ($(why_not "$venv/peers.log")); continuing without it"
    done
}

ensure_venv

case $what in
    demo | bench) extras= ;;
    test | dev) extras='[test]' ;;
    *) die "unknown: $what; one of demo, test, dev, bench" ;;
esac

say "installing aiohttpconn${extras:+ and the packages for its tests}"
install --editable ".$extras" || die "the installation failed; see above"
if install --editable ".[speed]" 2>"$venv/uvloop.log"; then
    rm "$venv/uvloop.log"
else
    say "uvloop could not be installed (see $venv/uvloop.log); continuing with asyncio's own loop"
fi
if [ "$what" = dev ]; then
    # Dependency groups need pip 25.1.
    has_uv || install 'pip>=25.1'
    install --editable . --group dev || die "the tools could not be installed; see above"
fi
if [ "$what" = bench ]; then
    main=$venv
    say "installing the clients to compare with"
    install_peers benchmarks/requirements.txt
    for file in benchmarks/requirements-*.txt; do
        name=${file#benchmarks/requirements-}
        venv=$main-${name%.txt}
        ensure_venv
        install_peers "$file"
    done
    venv=$main
fi
touch "$venv/.ready-$what"
