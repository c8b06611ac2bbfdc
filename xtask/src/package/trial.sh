# In a Debian that has nothing else: see trial.rs.
export DEBIAN_FRONTEND=noninteractive TRINE_HOME=/var/lib/trine TRINE_PATIENCE=2 HOME=/root
new=$1
exec >&2
trap 'cat /trined.log' EXIT

fail() { echo "$*"; exit 1; }

# Until a command succeeds, for two minutes.
await() {
    for _ in $(seq 240); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    fail "never: $*"
}

begin_daemon() {
    trined >>/trined.log 2>&1 &
    daemon=$!
    await trine ls
}

end_daemon() {
    kill "$daemon"
    wait "$daemon" || true
}

pid() { trine vm show guest -o json | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*$'; }
runs() { trine ls -o json | grep -q '"phase": *"running"'; }

echo "install"
dpkg -i /old.deb
for file in /usr/share/man/man1/trine-launch.1.gz /etc/default/trined /usr/lib/systemd/system/trined.service \
    /usr/share/bash-completion/completions/trine /usr/share/doc/trine/README.md; do
    test -s "$file" || fail "$file is missing"
done
begin_daemon
trine launch guest --kernel /vmlinuz --initrd /initrd --cmdline 'console=ttyS0 quiet' --memory 256M
await runs
before=$(pid)

echo "upgrade while a VM runs"
echo 'TRINE_LOG=debug' >>/etc/default/trined
dpkg -i /new.deb
test "$(dpkg-query -W -f '${Version}' trine)" = "$new" || fail "the new version is not installed"
grep -q '^TRINE_LOG=debug' /etc/default/trined || fail "the configuration was not kept"
end_daemon
test -d "/proc/$before" || fail "the VM ended with the daemon"
begin_daemon
await runs
test "$(pid)" = "$before" || fail "the new daemon does not have the VM of the old one"

echo "remove"
end_daemon
dpkg -r trine
test ! -d "/proc/$before" || fail "the VM goes on without Trine"
test -d /var/lib/trine/state || fail "what was wanted is gone"

echo "install again"
dpkg -i /new.deb
begin_daemon
trine start guest
runs || fail "the VM that was there before does not start"
end_daemon

echo "purge"
dpkg -P trine
for process in /proc/[0-9]*; do
    case "$(readlink "$process/exe" || true)" in
    */trine*) fail "$process goes on" ;;
    esac
done
left=$(find / -xdev -iname '*trine*' -not -path '/proc/*' -not -path '/sys/*' -not -name 'trined.log')
test -z "$left" || fail "purge leaves: $left"
trap - EXIT
