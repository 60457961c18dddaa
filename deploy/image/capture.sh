#!/bin/sh
# Captures the crossing network at the coordinator's end, in the network of its border's gate, into /capture:
#
#   crossing.pcap   what passes there, from before the zones' gates start
#   parties         whose address is whose, SITE=ADDRESS[:PORT] a line, as soon as every gate has one
#
# Left out is IPv6 to groups of hosts, unless it is from the gate's own card: the host speaks it, of itself, on every
# network that it makes, and no container here has IPv6.
set -eu
address() { getent hosts "$1" | cut -d ' ' -f 1; }

cd /capture
rm -f crossing.pcap parties parties.new
hq=$(address link.hq)
card=$(ip -o -4 address | grep -F " $hq/" | cut -d ' ' -f 2)
own=$(cat "/sys/class/net/$card/address")
{
  until cn=$(address cn-gate) && us=$(address us-gate) && [ -n "$cn" ] && [ -n "$us" ]; do sleep 1; done
  printf '%s\n' "hq=$hq:8443" "cn-shanghai=$cn" "us-texas=$us" >parties.new
  mv parties.new parties
} &
exec tcpdump -i "$card" -B 16384 -U -s 0 -Z root -w crossing.pcap "not (ip6 and ether multicast and not ether src $own)"
