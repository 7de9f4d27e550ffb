//! The groups of a site: those that `upstream` blocks name, and one for every other address that requests are passed
//! on to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::upstream::Group;
use crate::upstream::names::ResolverPlan;
use crate::upstream::plan::{GroupPlan, PlanAddress};

use super::modules::upstream::GroupSettings;
use super::upstream_call::{PassAddress, PassId, Target};

/// A group, and how the names in it are looked up.
#[derive(Clone, Debug)]
pub struct SiteGroup {
    /// The group.
    pub group: Arc<Group>,
    /// The resolver for its names; `None` for the system's.
    pub resolver: Option<Arc<ResolverPlan>>,
    /// The texts with variables that its method and its sessions go by.
    pub settings: Arc<GroupSettings>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Upstreams {
    groups: Vec<SiteGroup>,
    /// The groups of `upstream` blocks.
    named: HashMap<Box<[u8]>, usize>,
    /// The group of each address that is passed on to.
    passes: Vec<usize>,
}

impl Upstreams {
    /// Takes the group of an `upstream` block. Names are unique: the block was refused else.
    pub fn add_named(&mut self, name: &[u8], group: SiteGroup) {
        self.named.insert(name.into(), self.groups.len());
        self.groups.push(group);
    }

    /// Finds or makes the group of each address, in their order; all blocks must have been added.
    pub fn link(&mut self, passes: &[PassAddress]) {
        for pass in passes {
            let place = match self.position_of(pass) {
                Some(position) => position,
                None => {
                    self.groups.push(SiteGroup {
                        group: Arc::new(Group::new(implicit(pass), None)),
                        resolver: None,
                        settings: Arc::default(),
                    });
                    self.groups.len() - 1
                }
            };
            self.passes.push(place);
        }
    }

    fn position_of(&self, pass: &PassAddress) -> Option<usize> {
        match pass {
            PassAddress::Host { host, port: None, .. } => self.named.get(host).copied(),
            _ => None,
        }
    }

    /// The group of an address of the configuration.
    pub fn group(&self, id: PassId) -> &Arc<Group> {
        &self.groups[self.passes[id.0 as usize]].group
    }

    /// The group of an `upstream` block.
    pub fn named(&self, name: &[u8]) -> Option<&Arc<Group>> {
        self.named.get(name).map(|position| &self.groups[*position].group)
    }

    /// What a call goes to, if that is a group of the configuration.
    pub fn of_target(&self, target: &Target) -> Option<&SiteGroup> {
        let position = match target {
            Target::Fixed(id) => Some(self.passes[id.0 as usize]),
            Target::Computed(address) => self.position_of(address),
        };
        position.map(|position| &self.groups[position])
    }

    /// All of them.
    pub fn all(&self) -> &[SiteGroup] {
        &self.groups
    }

    /// Takes over what the site before knows of the same groups: a reload forgets nothing.
    pub fn renew(&mut self, former: &Upstreams) {
        let known: HashMap<&str, &Arc<Group>> =
            former.groups.iter().map(|known| (known.group.name(), &known.group)).collect();
        for own in &mut self.groups {
            let previous = known.get(own.group.name()).copied();
            own.group = Group::renew(own.group.plan().clone(), previous);
        }
    }
}

/// The group that an address without an `upstream` block is.
pub fn implicit(pass: &PassAddress) -> GroupPlan {
    match pass {
        PassAddress::Host { host, port, default_port } => {
            let host = String::from_utf8_lossy(host);
            let port = port.unwrap_or(*default_port);
            let name = match host.parse::<Ipv6Addr>() {
                Ok(_) => format!("[{host}]:{port}"),
                Err(_) => format!("{host}:{port}"),
            };
            let address = match host.parse::<IpAddr>() {
                Ok(ip) => PlanAddress::Inet(vec![SocketAddr::new(ip, port)]),
                Err(_) => {
                    PlanAddress::Name { host: host.as_ref().into(), port, resolve: false, service: None }
                }
            };
            GroupPlan::implicit(name, address)
        }
        PassAddress::Unix(path) => GroupPlan::implicit(
            format!("unix:{}", String::from_utf8_lossy(path)),
            PlanAddress::Unix(path.clone()),
        ),
    }
}
