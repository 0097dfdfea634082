//! The discovery log of one host: what it may connect to, and where (Base 3.1.2.3, 5.16.1.23).

use std::net::SocketAddr;

use nvme::Nqn;
use nvme::discovery::{DiscoveryEntry, DiscoveryHeader, RECORD_BYTES, subtype};
use zerocopy::IntoBytes;

use super::exports::Exports;

/// Entries of an admin queue that discovery recommends.
const ADMIN_ENTRIES: u16 = 128;

/// A listener as a host can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its number: PORTID.
    pub id: u16,
    /// Discovery alone is served there.
    pub discovery_only: bool,
}

/// The address that a host which has reached us at `local` can use for a listener bound to
/// `bound`, which may be bound to all addresses.
pub fn reachable(bound: SocketAddr, local: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        return SocketAddr::new(local.ip().to_canonical(), bound.port());
    }
    bound
}

/// The log: first the services for discovery, here and elsewhere, then each subsystem that lets
/// the host in, at each port.
pub fn log(exports: &Exports, host: &Nqn, ports: &[Port]) -> Vec<u8> {
    let mut entries = Vec::new();
    for port in ports {
        let kind = subtype::CURRENT_DISCOVERY;
        entries.push(entry(&Nqn::discovery(), kind, port));
    }
    for address in &exports.referrals {
        // Of the ports there nothing is known.
        let port = Port { address: *address, id: 0, discovery_only: true };
        entries.push(entry(&Nqn::discovery(), subtype::REFERRAL, &port));
    }
    for (nqn, subsystem) in &exports.subsystems {
        if subsystem.hosts.allow(host) {
            let served = ports.iter().filter(|port| !port.discovery_only);
            entries.extend(served.map(|port| entry(nqn, subtype::NVM, port)));
        }
    }
    let header = DiscoveryHeader::new(exports.generation, entries.len() as u64);
    let mut log = header.as_bytes().to_vec();
    entries.iter().for_each(|entry| log.extend_from_slice(entry.as_bytes()));
    log
}

fn entry(nqn: &Nqn, kind: u8, port: &Port) -> DiscoveryEntry {
    DiscoveryEntry::tcp(nqn, kind, port.address, port.id, ADMIN_ENTRIES)
}

/// Two logs say the same but for their generation.
pub fn same_entries(one: &[u8], other: &[u8]) -> bool {
    one.get(RECORD_BYTES..) == other.get(RECORD_BYTES..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::nvmf::exports::{Hosts, Subsystem};
    use zerocopy::FromBytes;

    fn nqn(name: &str) -> Nqn {
        Nqn::new(&format!("nqn.2026-11.example:{name}")).unwrap()
    }

    fn parse(log: &[u8]) -> (u64, Vec<(String, u8, SocketAddr)>) {
        let (header, entries) = log.split_at(RECORD_BYTES);
        let header = DiscoveryHeader::read_from_bytes(header).unwrap();
        let entries: Vec<_> = entries
            .chunks(RECORD_BYTES)
            .map(|entry| {
                let entry = DiscoveryEntry::read_from_bytes(entry).unwrap();
                let name = Nqn::from_field(&entry.subnqn).unwrap().to_string();
                (name, entry.subtype, entry.address().unwrap())
            })
            .collect();
        assert_eq!(header.numrec.get(), entries.len() as u64);
        (header.genctr.get(), entries)
    }

    #[test]
    fn a_host_sees_what_lets_it_in() {
        let mut exports = Exports::default();
        exports.add_subsystem(nqn("any"), Subsystem::new("1", Hosts::Any).unwrap()).unwrap();
        let listed = Exports::listed([nqn("host1")]);
        exports.add_subsystem(nqn("one"), Subsystem::new("2", listed).unwrap()).unwrap();
        let io: SocketAddr = "10.0.0.1:4420".parse().unwrap();
        let discovery: SocketAddr = "10.0.0.1:8009".parse().unwrap();
        let ports = [
            Port { address: io, id: 1, discovery_only: false },
            Port { address: discovery, id: 2, discovery_only: true },
        ];
        let names = |host: &str| -> Vec<_> {
            let (generation, entries) = parse(&log(&exports, &nqn(host), &ports));
            assert_eq!(generation, 2);
            assert_eq!(
                entries[..2].iter().map(|e| (e.1, e.2)).collect::<Vec<_>>(),
                [(3, io), (3, discovery)]
            );
            entries[2..]
                .iter()
                .map(|(name, kind, at)| {
                    assert_eq!((*kind, *at), (2, io));
                    name.rsplit(':').next().unwrap().to_owned()
                })
                .collect()
        };
        assert_eq!(names("host1"), ["any", "one"]);
        assert_eq!(names("host2"), ["any"]);
    }

    #[test]
    fn hosts_are_referred_to_other_services() {
        let mut exports = Exports::default();
        let other: SocketAddr = "10.0.0.2:8009".parse().unwrap();
        exports.add_referral(other).unwrap();
        let (generation, entries) = parse(&log(&exports, &nqn("h"), &[]));
        let name = Nqn::discovery().to_string();
        assert_eq!((generation, entries), (1, vec![(name, subtype::REFERRAL, other)]));
    }

    #[test]
    fn addresses_are_those_that_the_host_knows() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(reachable(at("0.0.0.0:4420"), at("10.0.0.7:8009")), at("10.0.0.7:4420"));
        assert_eq!(reachable(at("[::]:4420"), at("[::ffff:10.0.0.7]:1")), at("10.0.0.7:4420"));
        assert_eq!(reachable(at("10.0.0.1:4420"), at("10.0.0.7:8009")), at("10.0.0.1:4420"));
    }

    #[test]
    fn a_generation_alone_is_no_difference() {
        let mut exports = Exports::default();
        let first = log(&exports, &nqn("h"), &[]);
        exports.generation += 1;
        let second = log(&exports, &nqn("h"), &[]);
        assert_ne!(first, second);
        assert!(same_entries(&first, &second));
    }
}
