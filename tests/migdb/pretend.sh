#!/bin/sh
# A stand-in for balena-migrate on a pretend device: its verbs, exit codes and JSON, strictly. What it is
# told is in files of the home folder, above the one that it runs in: refuse, break, odd, slow, prepares
# (seconds); `orders` has a line for each order to migrate that it took.
home=..
verb=$1
shift
say() { printf '%s\n' "$1"; }
usage() { echo "pretend: $verb does not take: $*" >&2; exit 2; }
[ -s balena-migrate.conf ] || { echo "pretend: no configuration" >&2; exit 2; }
exec 9>> $home/lock
finding='{"code":"disk-size","severity":"error","what":"the disk is too small","remedy":"take a larger one"}'
case $verb in
    plan)
        [ "$*" = --json ] || usage "$@"
        if [ -e $home/refuse ]; then
            say "{\"findings\":[$finding]}"
            exit 3
        fi
        say '{"findings":[],"summary":{},"steps":[],"armed":true}'
        ;;
    run)
        case "$*" in
            '--json --yes --reboot 10') ;;
            '--json --yes --reboot 10 --balena-cfg balena-migrate-config.json')
                [ -s balena-migrate-config.json ] || usage "$@" ;;
            *) usage "$@" ;;
        esac
        if ! flock -w 0.5 9; then
            say '{"outcome":"running","exit":3,"findings":[],"reboot":null,"message":"another one runs"}'
            exit 3
        fi
        state=$(cat $home/state 2>/dev/null || echo idle)
        if [ "$state" != idle ]; then
            say "{\"outcome\":\"earlier-run\",\"exit\":3,\"findings\":[],\"reboot\":null,\"message\":\"$state\"}"
            exit 3
        fi
        if [ -e $home/break ]; then
            say '{"outcome":"fault","exit":1,"message":"writing /boot/x: no space"}'
            exit 1
        fi
        if [ -e $home/odd ]; then
            echo 'migration successful, rebooting system in 10 seconds'
            exit 1
        fi
        if [ -e $home/prepares ]; then
            echo interrupted > $home/state
            sleep "$(cat $home/prepares)"
        fi
        echo armed > $home/state
        echo order >> $home/orders
        [ ! -e $home/slow ] || sleep 2
        say '{"outcome":"armed","exit":0,"findings":[],"reboot":10,"message":null}'
        ;;
    status)
        [ "$*" = --json ] || usage "$@"
        state=$(cat $home/state 2>/dev/null || echo idle)
        flock -n 9 || state=running
        say "{\"state\":\"$state\",\"message\":\"it is $state\\n\"}"
        ;;
    undo)
        [ $# = 0 ] || usage "$@"
        flock -w 0.5 9 || { echo 'another one runs' >&2; exit 3; }
        rm -f $home/state
        echo 'Everything was taken back; the machine is as it was before.'
        ;;
    *) usage "$@" ;;
esac
