#!/bin/bash
# Starts NetworkManager on the keyfiles of a folder, and shows what it made of each.
#
#   unshare --mount --net --pid --fork --mount-proc load.sh FOLDER
#
# Everything that it writes to lies on file systems in memory that end with the namespaces.
set -euo pipefail
keyfiles=$1
connections=/etc/NetworkManager/system-connections

for tool in NetworkManager nmcli dbus-daemon; do
    command -v $tool > /dev/null || { echo "$tool is not installed" >&2; exit 1; }
done

mount --make-rprivate /
staging=$(mktemp -d)
cp "$keyfiles"/* "$staging"
for folder in /run /etc/NetworkManager /var/lib/NetworkManager; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
# The network namespace's own devices: only the loopback.
mount -t sysfs sysfs /sys
mkdir -p /run/dbus /run/NetworkManager $connections
cat > /etc/NetworkManager/NetworkManager.conf << 'CONF'
[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
no-auto-default=*

[keyfile]
unmanaged-devices=*
CONF

# A bus of its own, which starts no services.
cat > /run/dbus/bus.conf << 'CONF'
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
CONF
dbus-daemon --config-file=/run/dbus/bus.conf --nopidfile --fork
NetworkManager --no-daemon --log-level=WARN > /run/nm.log 2>&1 &

ready=
for _ in $(seq 100); do
    if nmcli -t general status > /dev/null 2>&1; then
        ready=yes
        break
    fi
    sleep 0.1
done
[ -n "$ready" ] || { echo "NetworkManager did not start" >&2; cat /run/nm.log >&2; exit 1; }

fields=connection.type,connection.interface-name,connection.autoconnect-priority
fields+=,802-11-wireless.ssid,802-11-wireless.hidden,802-11-wireless-security.key-mgmt
fields+=,802-1x.eap,802-1x.identity,802-1x.phase2-auth,802-1x.phase2-autheap
fields+=,802-3-ethernet.mac-address,vlan.id,gsm.apn,gsm.number,gsm.username
for family in ipv4 ipv6; do
    fields+=,$family.method,$family.addresses,$family.gateway,$family.routes
    fields+=,$family.dns,$family.dns-search
done

secrets='psk|password|pin|ca-cert|client-cert|private-key|private-key-password'

failed=0
for file in "$staging"/*; do
    name=$(basename "$file")
    cp "$file" $connections/
    chmod 600 "$connections/$name"
    # nmcli says "Could not load file" and still ends well.
    said=$(nmcli connection load "$connections/$name" 2>&1) || true
    echo "## $name"
    # Fields of other types are not shown; blank ones say nothing.
    if [ -n "$said" ] || ! nmcli -t connection show id "$name" > /run/shown 2>&1; then
        echo "$name: $said $(cat /run/shown 2> /dev/null)" >&2
        failed=1
        continue
    fi
    tr , '\n' <<< $fields > /run/fields
    grep -F -f <(sed 's/$/:/' /run/fields) /run/shown | grep -v ':$' | grep -v ':--$' || true
    # Secrets and certificates as NetworkManager holds them, by length. On a busy machine it may
    # answer late, and nmcli then leaves them out.
    expected=$(grep -cE "^($secrets)=" "$file" || true)
    for _ in $(seq 20); do
        nmcli -t -s connection show id "$name" 2> /dev/null > /run/shown || true
        grep -E "^[a-z0-9-]+\.($secrets):" /run/shown | grep -vE ':(--|<hidden>)?$' > /run/secret || true
        [ "$(wc -l < /run/secret)" -lt "$expected" ] || break
        sleep 0.5
    done
    awk -F: '{ print $1 ": " length($0) - length($1) - 1 " characters" }' /run/secret
done
if [ -s /run/nm.log ]; then
    grep -E 'keyfile|warn|<error>' /run/nm.log >&2 || true
fi
[ $failed = 0 ] || { cat /run/nm.log >&2; exit 1; }
