#!/bin/bash
# Runs the tests that need a kernel with TLS in a user-mode Linux, on this machine's own files.
#
#     tests/kernel_tls.sh [FILTER...]       # default: kernel
#
# Wants Debian's package user-mode-linux; UML names the program and UML_MODULES its modules where they lie elsewhere.
set -eu
cd "$(dirname "$0")/.."
uml=${UML:-linux.uml}
modules=${UML_MODULES:-$(ls -d /usr/lib/uml/modules/*/kernel | tail -1)}
program=$(cargo test --no-run --test it --message-format json 2>/dev/null |
    python3 -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "it"][-1])')
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/load.py" <<'END'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for path in sys.argv[1:]:
    # finit_module(2); what is there already is fine.
    if libc.syscall(313, os.open(path, os.O_RDONLY), b"", 0) != 0 and ctypes.get_errno() != 17:
        print(path, os.strerror(ctypes.get_errno()))
END
cat > "$place/init" <<END
#!/bin/bash
export PATH=$PATH HOME=$HOME
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /dev/shm
ip link set lo up
/usr/bin/python3 $place/load.py $modules/{net/tls/tls,crypto/gf128mul,crypto/ghash-generic,crypto/ctr,crypto/gcm,lib/crypto/libchacha,lib/crypto/libpoly1305,crypto/chacha_generic,crypto/poly1305_generic,crypto/chacha20poly1305}.ko
cd $PWD && $program --test-threads 1 ${*:-kernel} > $place/output 2>&1
echo \$? > $place/status
sync; echo o > /proc/sysrq-trigger; sleep 5
END
chmod +x "$place/init"
"$uml" mem=2048M rootfstype=hostfs rootflags=/ rw init="$place/init" con=null con0=null,null con1=null </dev/null >"$place/console" 2>&1 || true
cat "$place/output" || tail -20 "$place/console"
exit "$(cat "$place/status" 2>/dev/null || echo 1)"
