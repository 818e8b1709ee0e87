//! The bodies that are being read: how many are waited for at a time, how many bytes are held, and
//! which one is evicted when there is no room.
//!
//! A body that is there as soon as it is asked for takes no place. Only one that has to be waited
//! for does, so a client that sends headers and nothing else can't keep honest callbacks out: its
//! bodies are evicted first.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use prometheus::IntGauge;
use rand::Rng;
use tokio::sync::Notify;
use zentra_config::Bounds;

use crate::refusal::Refusal;

/// Period in which a body must receive `min_body_rate` times this many bytes.
pub(crate) const STALL: Duration = Duration::from_secs(2);
/// A body without progress for this long can be evicted.
const SLOW: Duration = Duration::from_millis(500);
/// Number of bodies that are compared to find the slowest. Comparing all would make a flood
/// expensive.
const SAMPLE: usize = 16;
/// Maximum number of bodies that are evicted for one.
const VICTIMS: usize = 8;

/// All bodies of an ingress.
pub(crate) struct Bodies {
    state: Mutex<State>,
    /// Maximum number of bodies that are being received.
    places: usize,
    /// Maximum total size in memory, in bytes.
    bytes: usize,
    /// Maximum number for one peer.
    peer_places: usize,
    peer_bytes: usize,
    /// Bytes that count as progress.
    progress: usize,
}

struct State {
    /// Bodies that are being received.
    waiting: IndexMap<u64, Waiting>,
    /// Gauge of bodies that are being received.
    gauge: IntGauge,
    peers: HashMap<IpAddr, Held>,
    bytes: usize,
    next: u64,
}

/// What one peer holds.
#[derive(Clone, Copy, Default)]
struct Held {
    places: usize,
    bytes: usize,
}

struct Waiting {
    peer: IpAddr,
    bytes: usize,
    progress: Instant,
    eviction: Arc<Eviction>,
}

#[derive(Default)]
struct Eviction {
    done: AtomicBool,
    notify: Notify,
}

/// What a new body needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Place,
    Bytes,
}

impl Bodies {
    pub(crate) fn new(bounds: &Bounds, gauge: IntGauge) -> Arc<Self> {
        let share = |of: usize| (of.saturating_mul(bounds.max_peer_share) / 100).max(1);
        let places = bounds.max_connections as usize;
        let stall = usize::try_from(STALL.as_secs()).unwrap_or(1);
        let state =
            State { waiting: IndexMap::new(), gauge, peers: HashMap::new(), bytes: 0, next: 0 };
        Arc::new(Self {
            state: Mutex::new(state),
            places,
            bytes: bounds.max_buffered,
            peer_places: share(places),
            peer_bytes: share(bounds.max_buffered),
            progress: bounds.min_body_rate.saturating_mul(stall),
        })
    }

    /// Starts to receive a body of this peer. One body of `most` bytes is always within its share.
    pub(crate) fn begin(self: &Arc<Self>, peer: IpAddr, most: usize) -> Reading {
        Reading {
            bodies: self.clone(),
            peer: network(peer),
            share: self.peer_bytes.max(most),
            bytes: 0,
            progress: Instant::now(),
            since: 0,
            place: None,
        }
    }

    /// Evicts the slowest body, so that its connection ends.
    pub(crate) fn make_way(&self) {
        let mut state = self.state();
        // Nobody knows yet whose the new connection is: no fast body is evicted for it.
        let most = Held { places: usize::MAX / 4, bytes: 0 };
        if let Some(victim) = state.victim(Need::Place, None, most) {
            state.evict(victim);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One body. Its bytes count until this is dropped.
pub(crate) struct Reading {
    bodies: Arc<Bodies>,
    peer: IpAddr,
    /// Maximum number of bytes of its peer.
    share: usize,
    bytes: usize,
    /// When enough bytes had come last, and how many have since.
    progress: Instant,
    since: usize,
    /// Its place among the bodies that are being received.
    place: Option<(u64, Arc<Eviction>)>,
}

impl Reading {
    /// Holds more bytes.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] where `max_buffered` or its peer's share is taken, and no other body
    /// can be evicted.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bodies = self.bodies.clone();
        let mut state = bodies.state();
        if self.is_evicted() {
            return Err(Refusal::Overloaded);
        }
        for left in (0..=VICTIMS).rev() {
            let own = state.held(self.peer);
            let over_share = own.bytes + bytes > self.share;
            if !over_share && state.bytes + bytes <= bodies.bytes {
                break;
            }
            let within = over_share.then_some(self.peer);
            let own = Held { bytes: own.bytes + bytes, ..own };
            match state.victim(Need::Bytes, within, own) {
                Some(victim) if left > 0 && !self.is(victim) => state.evict(victim),
                _ => return Err(Refusal::Overloaded),
            }
        }
        state.bytes += bytes;
        state.peers.entry(self.peer).or_default().bytes += bytes;
        self.bytes += bytes;
        self.since += bytes;
        if self.since >= bodies.progress {
            (self.progress, self.since) = (Instant::now(), 0);
        }
        if let Some(waiting) = self.place.as_ref().and_then(|(id, _)| state.waiting.get_mut(id)) {
            (waiting.bytes, waiting.progress) = (self.bytes, self.progress);
        }
        Ok(())
    }

    /// Takes a place among those that are waited for, if it has none yet.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] where all places, or its peer's share of them, are taken, and no
    /// other body can be evicted.
    pub(crate) fn wait(&mut self) -> Result<(), Refusal> {
        if self.place.is_some() {
            return Ok(());
        }
        let bodies = self.bodies.clone();
        let mut state = bodies.state();
        let own = state.held(self.peer);
        let over_share = own.places >= bodies.peer_places;
        if over_share || state.waiting.len() >= bodies.places {
            let within = over_share.then_some(self.peer);
            let victim = state.victim(Need::Place, within, own).ok_or(Refusal::Overloaded)?;
            state.evict(victim);
        }
        let id = state.next;
        state.next += 1;
        let eviction = Arc::new(Eviction::default());
        let (peer, bytes, progress) = (self.peer, self.bytes, self.progress);
        let waiting = Waiting { peer, bytes, progress, eviction: eviction.clone() };
        state.waiting.insert(id, waiting);
        state.gauge.inc();
        state.peers.entry(peer).or_default().places += 1;
        self.place = Some((id, eviction));
        Ok(())
    }

    /// Returns when the body is evicted.
    pub(crate) async fn evicted(&self) {
        match &self.place {
            Some((_, eviction)) => eviction.notify.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Time at which the body counts as too slow, if nothing arrives until then.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        (self.bodies.progress > 0).then(|| self.progress + STALL)
    }

    /// Marks the body as complete. It can't be evicted any more; its bytes count until this is
    /// dropped.
    pub(crate) fn complete(&mut self) -> Result<(), Refusal> {
        let bodies = self.bodies.clone();
        let mut state = bodies.state();
        if self.is_evicted() {
            return Err(Refusal::Overloaded);
        }
        if let Some((id, _)) = self.place.take() {
            state.leave(id);
        }
        Ok(())
    }

    fn is(&self, id: u64) -> bool {
        self.place.as_ref().is_some_and(|(own, _)| *own == id)
    }

    fn is_evicted(&self) -> bool {
        self.place.as_ref().is_some_and(|(_, eviction)| eviction.done.load(Ordering::Acquire))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.bodies.state();
        // The bytes of an evicted one have been given back.
        if self.is_evicted() {
            return;
        }
        if let Some((id, _)) = self.place.take() {
            state.leave(id);
        }
        state.release(self.peer, self.bytes);
    }
}

impl State {
    fn held(&self, peer: IpAddr) -> Held {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    /// The slowest of a sample, of this peer only where one is named. Those that have sent nothing, or
    /// made no progress for [`SLOW`], are evicted first; a faster one only if its peer holds more than
    /// twice what the newcomer's does.
    fn victim(&self, need: Need, within: Option<IpAddr>, own: Held) -> Option<u64> {
        let (now, mut random) = (Instant::now(), rand::rng());
        let held = |peer| match need {
            Need::Place => self.held(peer).places,
            Need::Bytes => self.held(peer).bytes,
        };
        let fair = match need {
            Need::Place => 2 * (own.places + 1),
            Need::Bytes => 2 * own.bytes,
        };
        let one = |at| {
            let (id, one) = self.waiting.get_index(at)?;
            let (idle, greedy) = (now.duration_since(one.progress), held(one.peer) > fair);
            let silent = one.bytes == 0;
            let slow = silent || idle >= SLOW;
            let fits = (slow || greedy)
                && (need == Need::Place || !silent)
                && within.is_none_or(|peer| peer == one.peer);
            fits.then_some(((slow, greedy, silent, idle, one.bytes), *id))
        };
        let all = self.waiting.len();
        let sample: Vec<usize> =
            (0..SAMPLE.min(all)).map(|_| random.random_range(0..all)).collect();
        // Few of them may fit at all: then each is looked at.
        let victim = sample.into_iter().filter_map(one).max();
        victim.or_else(|| (0..all).filter_map(one).max()).map(|(_, id)| id)
    }

    fn evict(&mut self, id: u64) {
        let Some(waiting) = self.leave(id) else { return };
        self.release(waiting.peer, waiting.bytes);
        waiting.eviction.done.store(true, Ordering::Release);
        waiting.eviction.notify.notify_one();
    }

    fn leave(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.swap_remove(&id)?;
        self.gauge.dec();
        self.change(waiting.peer, |held| held.places -= 1);
        Some(waiting)
    }

    fn release(&mut self, peer: IpAddr, bytes: usize) {
        self.bytes -= bytes;
        self.change(peer, |held| held.bytes -= bytes);
    }

    /// A peer that holds nothing is removed.
    fn change(&mut self, peer: IpAddr, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.peers.get_mut(&peer) {
            change(held);
            if held.places == 0 && held.bytes == 0 {
                self.peers.remove(&peer);
            }
        }
    }
}

/// A client with one IPv6 address has its whole /64.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies(places: u32, bytes: usize, share: usize) -> Arc<Bodies> {
        let bounds = Bounds {
            max_connections: places,
            max_in_flight: 1,
            max_buffered: bytes,
            max_peer_share: share,
            max_headers: 1,
            max_header_bytes: 1,
            header_timeout: STALL,
            body_timeout: STALL,
            min_body_rate: 0,
            idle_timeout: STALL,
            drain_timeout: STALL,
        };
        Bodies::new(&bounds, IntGauge::new("bodies", "bodies").unwrap())
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn who_has_sent_nothing_gives_way_and_who_has_just_sent_something_does_not() {
        let bodies = bodies(1, 100, 100);
        let (mut silent, mut sending, mut late) =
            (bodies.begin(peer(1), 1), bodies.begin(peer(1), 1), bodies.begin(peer(1), 1));
        silent.wait().unwrap();
        sending.hold(10).unwrap();
        sending.wait().unwrap();
        assert!(silent.is_evicted() && silent.hold(1).is_err() && silent.complete().is_err());
        assert!(late.wait().is_err() && !sending.is_evicted());
        sending.complete().unwrap();
        assert!(late.wait().is_ok());
    }

    #[test]
    fn no_peer_holds_more_than_its_share_and_one_that_holds_much_gives_way_to_others() {
        let bodies = bodies(20, 1000, 50);
        let mut of_one: Vec<_> = (0..10).map(|_| bodies.begin(peer(1), 1)).collect();
        for one in &mut of_one {
            one.hold(1).unwrap();
            one.wait().unwrap();
        }
        let mut another = bodies.begin(peer(1), 1);
        another.hold(1).unwrap();
        assert!(another.wait().is_err(), "its share of places");
        assert!(another.hold(490).is_err(), "its share of bytes");
        // Whoever has a /64 of IPv6 is one peer.
        let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let mut of_net: Vec<_> = (0..10).map(|at| bodies.begin(v6(at), 1)).collect();
        for one in &mut of_net {
            one.hold(1).unwrap();
            one.wait().unwrap();
        }
        // All places are taken, by those who have just sent something.
        let mut newcomer = bodies.begin(peer(2), 1);
        newcomer.hold(1).unwrap();
        newcomer.wait().unwrap();
        let evicted = of_one.iter().chain(&of_net).filter(|one| one.is_evicted()).count();
        assert_eq!(evicted, 1);
    }

    #[test]
    fn the_slow_go_first_and_one_that_holds_bytes_is_found_among_many_that_hold_none() {
        let bodies = bodies(400, 100, 100);
        let mut fast: Vec<_> = (0..30).map(|_| bodies.begin(peer(1), 1)).collect();
        for one in &mut fast {
            one.hold(3).unwrap();
            one.wait().unwrap();
        }
        let mut silent: Vec<_> = (0..370_u16)
            .map(|at| bodies.begin([10, 0, (at >> 8) as u8, at as u8].into(), 1))
            .collect();
        for one in &mut silent {
            one.wait().unwrap();
        }
        // A greedy peer's fast bodies stay as long as there are silent ones.
        let mut newcomers: Vec<_> =
            (0..100).map(|at| bodies.begin([10, 1, 0, at].into(), 1)).collect();
        for one in &mut newcomers {
            one.wait().unwrap();
        }
        assert_eq!(fast.iter().filter(|one| one.is_evicted()).count(), 0);
        // Only 30 of 400 hold bytes, and their peer holds nearly all of them.
        let mut large = bodies.begin(peer(2), 1);
        large.hold(20).unwrap();
        assert!(fast.iter().any(|one| one.is_evicted()));
        // A body that its source allows is within its peer's share.
        assert!(self::bodies(4, 100, 10).begin(peer(1), 80).hold(80).is_ok());
    }

    proptest! {
        /// Whatever comes, the bounds hold, what is counted is what is held, and nothing is left.
        #[test]
        fn what_is_held_is_counted_and_within_the_bounds(
            steps in prop::collection::vec((0..5_u8, 0..12_usize, 0..4_u8, 1..40_usize), 1..200),
        ) {
            let bodies = bodies(4, 100, 60);
            let mut reading: HashMap<usize, Reading> = HashMap::new();
            for (what, at, of, bytes) in steps {
                let one = reading.entry(at).or_insert_with(|| bodies.begin(peer(of), 1));
                match what {
                    0 | 1 => drop(one.hold(bytes)),
                    2 => drop(one.wait()),
                    3 => drop(one.complete()),
                    _ => drop(reading.remove(&at)),
                }
                let state = bodies.state();
                let held = reading.values().filter(|one| !one.is_evicted());
                let bytes: usize = held.map(|one| one.bytes).sum();
                prop_assert_eq!(state.bytes, bytes);
                prop_assert!(state.bytes <= 100 && state.waiting.len() <= 4);
                prop_assert_eq!(state.peers.values().map(|held| held.bytes).sum::<usize>(), bytes);
                let places = state.peers.values().map(|held| held.places).sum::<usize>();
                prop_assert_eq!(places, state.waiting.len());
                prop_assert!(state.peers.values().all(|held| held.bytes <= 60 && held.places <= 2));
                prop_assert_eq!(state.gauge.get(), i64::try_from(places).unwrap());
            }
            reading.clear();
            let state = bodies.state();
            prop_assert!(state.bytes == 0 && state.waiting.is_empty() && state.peers.is_empty());
        }
    }
}
