#!/bin/bash
# Run the tests on the two newest Pythons of Debian's testing suite, in a Debian in a folder.
#
#     tools/newest_pythons.sh [--root ROOT] [PACKAGE ...]
#
# ROOT (by default a temporary folder, removed at the end) takes the Debian; the next run uses
# it again, and the PACKAGEs besides: servers to test with. All packages come from where this
# machine's apt gets its own. Without that, root's rights and debootstrap this says what is
# missing, and runs no test.
# ARGS, from the environment, goes to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
export ARGS="${ARGS:--q}"

skip() { printf 'newest Pythons: not tested: %s\n' "$*"; exit 0; }

[ "$(id -u)" = 0 ] || skip 'only root can make a Debian in a folder'
command -v debootstrap >/dev/null || skip 'debootstrap is not installed; on Debian: apt install debootstrap'
mirror=$(apt-get indextargets --format '$(ORIGIN) $(SITE)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's/^Debian //p' | head -n 1)
[ -n "$mirror" ] || skip "this machine's apt has no source of Debian"
unshare --mount true 2>/dev/null || skip 'mounts are not allowed here'

if [ "${1:-}" = --root ]; then
    root=$2
    shift 2
else
    root=$(mktemp -d)
    chmod 755 "$root" # some servers and tests run as nobody
    trap 'rm -rf --one-file-system "$root"' EXIT
fi

# The root's own view: this checkout at its own path, /proc and /dev. The mounts end with unshare.
# The environment (where pip finds its packages, say) goes along, but for the paths of programs.
inside() {
    unshare --mount -- sh -ec '
        root=$1 here=$2 command=$3
        mkdir -p "$root$here"
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "$here" "$root$here"
        exec chroot "$root" /usr/bin/env HOME=/root TMPDIR=/tmp DEBIAN_FRONTEND=noninteractive \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            sh -ec "cd \"\$0\"; $command" "$here"' sh "$root" "$PWD" "$1"
}

if [ ! -e "$root/.complete" ]; then
    # A debootstrap that is older than the suite has no script of its name; that of sid fits.
    debootstrap --variant=minbase --include=ca-certificates,make testing "$root" "$mirror" \
        /usr/share/debootstrap/scripts/sid >"$root.log" 2>&1 || { tail -n 20 "$root.log"; exit 1; }
    rm -f "$root.log"
    touch "$root/.complete"
fi
# The names of this machine's network, and whom it trusts.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"

versions=$(inside 'apt-cache pkgnames python3.' | sed -n 's/^python\(3\.[0-9]*\)-venv$/\1/p' |
    sort -t . -k 2 -n | tail -n 2)
[ -n "$versions" ] || { echo 'newest Pythons: the suite has none' >&2; exit 1; }
# Debian starts a server as soon as it is installed, unless this program says no.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
packages="$(printf 'python%s-venv ' $versions)$*"
inside "apt-get install -y -q --no-install-recommends $packages" >"$root/apt.log" 2>&1 ||
    { tail -n 20 "$root/apt.log"; exit 1; }
for version in $versions; do
    printf '\n== make test, Python %s, of %s\n' "$version" "$mirror"
    inside "make test PYTHON=python$version VENV=/opt/venv-$version"
done
