//! `tessera target nvmf …`: what is exported over NVMe/TCP, and to whom.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::Serialize;

use super::Context;
use crate::admin::{
    AdminRequest, AdminResponse, NvmfConnectionReport, NvmfListenerReport, NvmfSubsystemReport,
};
use crate::error::CommandError;
use crate::output::bytes_text;
use crate::table::{Align, Pairs, Table};

/// Which target.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// NVMe over TCP
    #[command(subcommand)]
    Nvmf(Nvmf),
}

/// What to do with the NVMe/TCP target.
#[derive(Debug, clap::Subcommand)]
pub enum Nvmf {
    /// Listen for hosts at an address, from now on
    Listen {
        /// ADDRESS:PORT
        #[arg(value_parser = parse_address)]
        address: SocketAddr,
    },
    /// No longer listen at an address; connected hosts stay
    Unlisten {
        /// ADDRESS:PORT
        #[arg(value_parser = parse_address)]
        address: SocketAddr,
    },
    /// Make, remove, list and show subsystems
    #[command(subcommand)]
    Subsystem(Subsystem),
    /// Add volumes to a subsystem and remove them
    #[command(subcommand)]
    Namespace(Namespace),
    /// Let hosts in
    #[command(subcommand)]
    Host(Host),
    /// Say which paths hosts should take
    #[command(subcommand)]
    Ana(Ana),
    /// Refer hosts to other discovery services
    #[command(subcommand)]
    Referral(Referral),
    /// Show connected hosts and their queues
    Connections,
}

/// Subsystems.
#[derive(Debug, clap::Subcommand)]
pub enum Subsystem {
    /// Make a subsystem
    Add(Add),
    /// Remove a subsystem and disconnect its hosts
    Remove {
        /// Its name
        nqn: String,
    },
    /// List all subsystems
    List,
    /// Show one subsystem
    Show {
        /// Its name
        nqn: String,
    },
}

/// Options of `subsystem add`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// Its name: nqn.yyyy-mm.reverse.domain:name
    nqn: String,
    /// A volume that becomes its next namespace; may be repeated
    #[arg(long = "volume", value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
    /// A host that may connect; may be repeated
    #[arg(long = "host", value_name = "NQN", required_unless_present = "any_host")]
    hosts: Vec<String>,
    /// Any host that reaches a listener may connect
    #[arg(long, conflicts_with = "hosts")]
    any_host: bool,
    /// Refuse writes
    #[arg(long)]
    read_only: bool,
    /// Serial number [default: made of the name]
    #[arg(long)]
    serial: Option<String>,
}

/// Namespaces.
#[derive(Debug, clap::Subcommand)]
pub enum Namespace {
    /// Add a volume; hosts see it at once
    Add {
        /// The subsystem
        nqn: String,
        /// The volume
        volume: String,
        /// Its number [default: the least free one]
        #[arg(long)]
        nsid: Option<u32>,
        /// Refuse writes
        #[arg(long)]
        read_only: bool,
        /// ANA group [default: 1]
        #[arg(long)]
        group: Option<u32>,
    },
    /// Remove a namespace; the volume stays
    Remove {
        /// The subsystem
        nqn: String,
        /// Its number
        nsid: u32,
    },
}

/// Hosts.
#[derive(Debug, clap::Subcommand)]
pub enum Host {
    /// Let a host in
    Add {
        /// The subsystem
        nqn: String,
        /// The host's name
        host: String,
    },
    /// No longer let a host in, and disconnect it
    Remove {
        /// The subsystem
        nqn: String,
        /// The host's name
        host: String,
    },
}

/// Referrals.
#[derive(Debug, clap::Subcommand)]
pub enum Referral {
    /// Tell hosts that ask for discovery of another such service
    Add {
        /// ADDRESS:PORT
        #[arg(value_parser = parse_address)]
        address: SocketAddr,
    },
    /// No longer tell them
    Remove {
        /// ADDRESS:PORT
        #[arg(value_parser = parse_address)]
        address: SocketAddr,
    },
    /// List all referrals
    List,
}

/// ANA groups.
#[derive(Debug, clap::Subcommand)]
pub enum Ana {
    /// Set the state of a group; hosts are told
    Set {
        /// The subsystem
        nqn: String,
        /// The group
        group: u32,
        /// Its state
        #[arg(value_parser = [
            "optimized", "non-optimized", "inaccessible", "persistent-loss", "change",
        ])]
        state: String,
    },
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "expected ADDRESS:PORT".to_owned();
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    let Action::Nvmf(action) = action;
    match context.admin()?.call(&request(action))? {
        AdminResponse::Done => {
            let removed = match action {
                Nvmf::Subsystem(Subsystem::Remove { nqn }) => nqn,
                _ => return Err(CommandError::WrongAnswer),
            };
            context.form.print(&Removed { removed }, |_| format!("{removed} removed"));
        }
        AdminResponse::NvmfListeners { listeners } => {
            context.form.print(&listeners, |all| listener_table(all));
        }
        AdminResponse::NvmfReferrals { referrals } => {
            context.form.print(&referrals, |all| referral_table(all));
        }
        AdminResponse::NvmfSubsystem(subsystem) => context.form.print(&subsystem, details),
        AdminResponse::NvmfSubsystems { subsystems } => {
            context.form.print(&subsystems, |all| subsystem_table(all));
        }
        AdminResponse::NvmfConnections { connections } => {
            context.form.print(&connections, |all| connection_table(all));
        }
        _ => return Err(CommandError::WrongAnswer),
    }
    Ok(())
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

fn request(action: &Nvmf) -> AdminRequest {
    match action {
        Nvmf::Listen { address } => AdminRequest::NvmfListen { address: *address },
        Nvmf::Unlisten { address } => AdminRequest::NvmfUnlisten { address: *address },
        Nvmf::Subsystem(Subsystem::Add(add)) => AdminRequest::NvmfSubsystemAdd {
            nqn: add.nqn.clone(),
            volumes: add.volumes.clone(),
            hosts: (!add.any_host).then(|| add.hosts.clone()),
            read_only: add.read_only,
            serial: add.serial.clone(),
        },
        Nvmf::Subsystem(Subsystem::Remove { nqn }) => {
            AdminRequest::NvmfSubsystemRemove { nqn: nqn.clone() }
        }
        Nvmf::Subsystem(Subsystem::List) => AdminRequest::NvmfSubsystemList,
        Nvmf::Subsystem(Subsystem::Show { nqn }) => {
            AdminRequest::NvmfSubsystemShow { nqn: nqn.clone() }
        }
        Nvmf::Namespace(Namespace::Add { nqn, volume, nsid, read_only, group }) => {
            AdminRequest::NvmfNamespaceAdd {
                nqn: nqn.clone(),
                volume: volume.clone(),
                nsid: *nsid,
                read_only: *read_only,
                group: *group,
            }
        }
        Nvmf::Namespace(Namespace::Remove { nqn, nsid }) => {
            AdminRequest::NvmfNamespaceRemove { nqn: nqn.clone(), nsid: *nsid }
        }
        Nvmf::Host(Host::Add { nqn, host }) => {
            AdminRequest::NvmfHostAdd { nqn: nqn.clone(), host: host.clone() }
        }
        Nvmf::Host(Host::Remove { nqn, host }) => {
            AdminRequest::NvmfHostRemove { nqn: nqn.clone(), host: host.clone() }
        }
        Nvmf::Ana(Ana::Set { nqn, group, state }) => {
            AdminRequest::NvmfAnaSet { nqn: nqn.clone(), group: *group, state: state.clone() }
        }
        Nvmf::Referral(Referral::Add { address }) => {
            AdminRequest::NvmfReferralAdd { address: *address }
        }
        Nvmf::Referral(Referral::Remove { address }) => {
            AdminRequest::NvmfReferralRemove { address: *address }
        }
        Nvmf::Referral(Referral::List) => AdminRequest::NvmfReferralList,
        Nvmf::Connections => AdminRequest::NvmfConnections,
    }
}

fn referral_table(referrals: &[SocketAddr]) -> Table {
    let mut table = Table::new(&[("referred to", Align::Left)]);
    referrals.iter().for_each(|address| table.row([address.to_string()]));
    table
}

fn listener_table(listeners: &[NvmfListenerReport]) -> Table {
    let mut table = Table::new(&[("address", Align::Left), ("serves", Align::Left)]);
    for listener in listeners {
        let serves = if listener.discovery_only { "discovery" } else { "everything" };
        table.row([listener.address.to_string(), serves.to_owned()]);
    }
    table
}

fn subsystem_table(subsystems: &[NvmfSubsystemReport]) -> Table {
    let mut table = Table::new(&[
        ("subsystem", Align::Left),
        ("serial", Align::Left),
        ("namespaces", Align::Right),
        ("hosts", Align::Left),
        ("connected", Align::Right),
    ]);
    for s in subsystems {
        table.row([
            s.nqn.clone(),
            s.serial.clone(),
            s.namespaces.len().to_string(),
            s.hosts.as_ref().map_or_else(|| "any".to_owned(), |hosts| hosts.len().to_string()),
            s.controllers.to_string(),
        ]);
    }
    table
}

fn details(s: &NvmfSubsystemReport) -> String {
    let hosts = s.hosts.as_ref().map_or_else(
        || "any".to_owned(),
        |hosts| if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") },
    );
    let head = Pairs::default()
        .with("subsystem", &s.nqn)
        .with("serial", &s.serial)
        .with("hosts", hosts)
        .with("connected", s.controllers);
    let mut table = Table::new(&[
        ("namespace", Align::Right),
        ("volume", Align::Left),
        ("size", Align::Right),
        ("block", Align::Right),
        ("access", Align::Left),
        ("group", Align::Right),
        ("state", Align::Left),
        ("uuid", Align::Left),
    ]);
    for n in &s.namespaces {
        table.row([
            n.nsid.to_string(),
            n.volume.clone().unwrap_or_else(|| "(gone)".to_owned()),
            bytes_text(n.size_bytes),
            n.block_bytes.to_string(),
            if n.read_only { "read-only" } else { "read-write" }.to_owned(),
            n.group.to_string(),
            n.ana_state.clone(),
            n.uuid.clone(),
        ]);
    }
    format!("{head}\n{table}")
}

fn connection_table(connections: &[NvmfConnectionReport]) -> Table {
    let mut table = Table::new(&[
        ("host", Align::Left),
        ("address", Align::Left),
        ("subsystem", Align::Left),
        ("controller", Align::Right),
        ("queue", Align::Right),
        ("core", Align::Right),
        ("entries", Align::Right),
        ("commands", Align::Right),
        ("errors", Align::Right),
        ("read", Align::Right),
        ("written", Align::Right),
    ]);
    for c in connections {
        table.row([
            c.host.clone(),
            c.address.clone(),
            c.subsystem.clone(),
            c.cntlid.to_string(),
            if c.qid == 0 { "admin".to_owned() } else { c.qid.to_string() },
            c.core.map_or_else(|| "-".to_owned(), |core| core.to_string()),
            c.entries.to_string(),
            c.commands.to_string(),
            c.errors.to_string(),
            bytes_text(c.read_bytes),
            bytes_text(c.written_bytes),
        ]);
    }
    table
}
