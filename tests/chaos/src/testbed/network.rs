//! A network of namespaces: each node has one of its own, and all are joined by a bridge in another, where packets can be
//! dropped by who sent them to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use quorumkv_tests::zookeeper::Lock;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::{feed, ip};
use super::owner::Owner;

/// Nobody routes these: they are set aside for tests of devices (RFC 2544).
const NETWORK: [u8; 2] = [198, 18];

/// What the host has in its network.
const HOST: u8 = 254;

/// Of a hundred packets so many are lost where packets are lost.
const LOST_PERCENT: u32 = 30;

/// A place in the network, such as that of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place(u8);

/// What happens to packets from one place to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Harm {
    /// None arrives.
    Cut,
    /// Some are lost.
    Lossy,
}

/// A direction in which packets go: from one place to another.
pub type Way = (Place, Place);

/// Namespaces joined by a bridge.
#[derive(Debug)]
pub struct Network {
    subnet: u8,
    hub: String,
    /// How many faults harm each direction.
    harmed: Mutex<BTreeMap<(Harm, Way), u32>>,
    _lock: Lock,
}

impl Network {
    /// Makes the bridge, and a way to it from here.
    pub(super) fn new(owner: &Owner) -> Result<Self> {
        let (subnet, lock) = free_subnet()?;
        let hub = owner.named("hub");
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add hub type bridge"))?;
        ip(&format!("-n {hub} link set hub up"))?;
        let rules = format!(
            "table bridge chaos {{
               set cut {{ type ipv4_addr . ipv4_addr; }}
               set lossy {{ type ipv4_addr . ipv4_addr; }}
               chain forward {{
                 type filter hook forward priority 0; policy accept;
                 ip saddr . ip daddr @cut drop
                 ip saddr . ip daddr @lossy numgen random mod 100 < {LOST_PERCENT} drop
               }}
             }}"
        );
        within(&hub, || feed("nft", &["-f", "-"], &rules))??;
        let network = Self { subnet, hub, harmed: Mutex::default(), _lock: lock };
        // Named after the subnet, which nobody else has now: such names are short. It goes with the hub.
        let here = format!("kvchaos{subnet}");
        ip(&format!("link add {here} type veth peer name host netns {}", network.hub))?;
        ip(&format!("-n {} link set host master hub up", network.hub))?;
        ip(&format!("addr add {}/24 dev {here}", network.address(Place(HOST))))?;
        ip(&format!("link set {here} up"))?;
        Ok(network)
    }

    /// Joins a namespace that is there already. `number` must be new, and below 250.
    pub(super) fn join(&self, namespace: &str, number: u8) -> Result<Place> {
        let place = Place(number);
        let hub = &self.hub;
        ip(&format!("-n {hub} link add p{number} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("-n {hub} link set p{number} master hub up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} addr add {}/24 dev eth0", self.address(place)))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        Ok(place)
    }

    /// The address of a place.
    #[must_use]
    pub fn address(&self, place: Place) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK[0], NETWORK[1], self.subnet, place.0)
    }

    /// Harms these directions, on top of what harms them already.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn harm(&self, harm: Harm, ways: &[Way]) -> Result<()> {
        let mut harmed = self.harmed();
        for &way in ways {
            *harmed.entry((harm, way)).or_default() += 1;
        }
        self.apply(&harmed)
    }

    /// Takes back what [`Network::harm`] did with the same.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn heal(&self, harm: Harm, ways: &[Way]) -> Result<()> {
        let mut harmed = self.harmed();
        for &way in ways {
            if let Some(count) = harmed.get_mut(&(harm, way)) {
                *count -= 1;
            }
        }
        harmed.retain(|_, count| *count > 0);
        self.apply(&harmed)
    }

    /// Whether all directions are free.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.harmed().is_empty()
    }

    /// Replaces the sets of directions in one step.
    fn apply(&self, harmed: &BTreeMap<(Harm, Way), u32>) -> Result<()> {
        let mut commands = String::new();
        for (harm, set) in [(Harm::Cut, "cut"), (Harm::Lossy, "lossy")] {
            commands.push_str(&format!("flush set bridge chaos {set}\n"));
            let ways: BTreeSet<Way> =
                harmed.keys().filter(|(found, _)| *found == harm).map(|(_, way)| *way).collect();
            let elements: Vec<String> = ways
                .into_iter()
                .map(|(from, to)| format!("{} . {}", self.address(from), self.address(to)))
                .collect();
            if !elements.is_empty() {
                commands.push_str(&format!("add element bridge chaos {set} {{ {} }}\n", elements.join(", ")));
            }
        }
        within(&self.hub, || feed("nft", &["-f", "-"], &commands))?.map(drop)
    }

    fn harmed(&self) -> MutexGuard<'_, BTreeMap<(Harm, Way), u32>> {
        self.harmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subnet that no other run has.
fn free_subnet() -> Result<(u8, Lock)> {
    for subnet in 0..=u8::MAX {
        if let Some(lock) = Lock::try_acquire(&format!("chaos-subnet-{subnet}"))? {
            return Ok((subnet, lock));
        }
    }
    None.context("all subnets are in use")
}

/// Runs something in a thread that stands in a network namespace: sockets that it opens and processes that it starts belong
/// there.
///
/// # Errors
/// There is no such namespace, or this is not root.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = format!("/run/netns/{namespace}");
    let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter {path}"))?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// All directions between two groups, both ways.
#[must_use]
pub fn between(one: &[Place], other: &[Place]) -> Vec<Way> {
    let there = ways(one, other);
    let back = ways(other, one);
    there.into_iter().chain(back).collect()
}

/// All directions from one group to another.
#[must_use]
pub fn ways(from: &[Place], to: &[Place]) -> Vec<Way> {
    let pairs = from.iter().flat_map(|&from| to.iter().map(move |&to| (from, to)));
    pairs.filter(|(from, to)| from != to).collect()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{SocketAddr, UdpSocket};
    use std::time::{Duration, Instant};

    use anyhow::ensure;

    use super::*;

    /// How long a packet may take that is not lost.
    const ARRIVES: Duration = Duration::from_secs(5);

    /// How long to wait for one that is.
    const LOST: Duration = Duration::from_millis(300);

    /// Whether a packet arrives; it is sent again where it would be a pity if it had been lost for another reason.
    fn arrives(from: &UdpSocket, to: &UdpSocket, within: Duration) -> Result<bool> {
        to.set_read_timeout(Some(Duration::from_millis(100)))?;
        let begun = Instant::now();
        while begun.elapsed() < within {
            from.send_to(b"x", to.local_addr()?)?;
            match to.recv(&mut [0; 9]) {
                Ok(_) => return Ok(true),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    #[test]
    fn cuts_are_of_the_direction_that_they_name() -> Result<()> {
        let owner = Owner::new()?;
        let network = Network::new(&owner)?;
        let (mut places, mut sockets) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let namespace = owner.named(&format!("n{number}"));
            ip(&format!("netns add {namespace}"))?;
            let place = network.join(&namespace, number + 1)?;
            let address = SocketAddr::from((network.address(place), 0));
            places.push(place);
            sockets.push(within(&namespace, || UdpSocket::bind(address))??);
        }
        let arrives = |from: usize, to: usize, within| arrives(&sockets[from], &sockets[to], within);
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 0)] {
            ensure!(arrives(from, to, ARRIVES)?, "nothing was cut from {from} to {to}");
        }
        network.harm(Harm::Cut, &[(places[0], places[1])])?;
        ensure!(!arrives(0, 1, LOST)?, "what was cut arrives");
        ensure!(arrives(1, 0, ARRIVES)? && arrives(0, 2, ARRIVES)?, "another direction is cut as well");
        // A second fault cuts the same: the first one's end does not mend it.
        let both = between(&places[..1], &places[1..]);
        network.harm(Harm::Cut, &both)?;
        network.heal(Harm::Cut, &[(places[0], places[1])])?;
        ensure!(!arrives(0, 1, LOST)? && !arrives(2, 0, LOST)?, "what is still cut arrives");
        ensure!(arrives(1, 2, ARRIVES)?, "another direction is cut as well");
        network.heal(Harm::Cut, &both)?;
        ensure!(network.is_whole() && arrives(0, 1, ARRIVES)? && arrives(2, 0, ARRIVES)?, "it does not heal");
        network.harm(Harm::Lossy, &both)?;
        let sent = 60;
        let to = sockets[1].local_addr()?;
        (0..sent).try_for_each(|_| sockets[0].send_to(b"x", to).map(drop))?;
        let arrived = (0..sent).take_while(|_| sockets[1].recv(&mut [0; 9]).is_ok()).count();
        ensure!((20..sent).contains(&arrived), "of {sent} packets {arrived} arrived");
        Ok(())
    }
}
