//! Threads of the pool that stay with the one that leads through a step, from one shared phase to the next.
//!
//! A sleeping thread takes longer to wake than most phases last, and a thread of the pool that finds nothing to do falls
//! asleep. So they are woken once, by the leader on its way into the first phase, and watch for the next one until the leader
//! is done. It never waits for one that has not come: it works on all parts itself, and only those begun elsewhere must end.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Cycles until a sleeping worker begins with what it is woken for: 28 microseconds by `benches/threads.rs`, on a virtual
/// machine (Zen 4, Linux).
const WAKE: f64 = 100_000.0;
/// What a thread must have to itself, so that by the time a second one has woken enough is left for both.
const WORTH: f64 = 0.6 * WAKE;
/// The same of one that is awake and watches.
const WORTH_AWAKE: f64 = 10_000.0;
/// Below so many cycles, one thread is enough, whatever the others do.
pub(super) const ALONE: f64 = 2.0 * WORTH_AWAKE;
/// How long a thread watches a leader from outside of the pool that does not lead: about as long as waking it again takes.
const LINGER: Duration = Duration::from_micros(100);
/// Looks at what the others do, until a thread offers its core to somebody else between them.
const LOOKS: usize = 100;
/// Places in a team.
const SEATS: usize = 64;

thread_local! {
    static LEADER: Leader = Leader { team: Arc::new(Team::new()), threads: Cell::new(0) };
}

/// A thread that shares its work, with those that watch it.
struct Leader {
    team: Arc<Team>,
    /// How many are to take part, this one included; 0 while it does not lead.
    threads: Cell<usize>,
}

/// Runs `f`, which is predicted to take so many cycles alone, with as many threads at hand as are worth it for what it shares.
pub(crate) fn lead<R: Send>(cycles: f64, f: impl FnOnce() -> R + Send) -> R {
    if cycles < ALONE {
        return f();
    }
    match LEADER.with(|leader| (leader.threads.get(), leader.worth(cycles))) {
        (0, threads) if threads > 1 => lead_through(threads, f),
        _ => f(),
    }
}

/// Threads that are worth it for work that takes so many cycles alone: of those at hand, or else of the pool that the caller
/// stands in, but no more than there are cores.
pub(super) fn worth(cycles: f64) -> usize {
    LEADER.with(|leader| leader.worth(cycles))
}

/// Runs all parts, on this thread and on as many others as it leads; if it does not yet, it leads `threads` through this alone.
pub(super) fn share(threads: usize, parts: usize, run: &(dyn Fn(usize) + Sync)) {
    let share = || LEADER.with(|leader| leader.team.share(threads, parts, run));
    match LEADER.with(|leader| leader.threads.get()) {
        0 => lead_through(threads, share),
        _ => share(),
    }
}

/// Runs `f` while up to `threads` threads, this one included, take part in what it shares.
fn lead_through<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            LEADER.with(|leader| leader.set(0));
        }
    }
    let team = LEADER.with(|leader| {
        leader.set(threads);
        Arc::clone(&leader.team)
    });
    let f = || {
        let _end = End;
        f()
    };
    if rayon::current_thread_index().is_none() {
        // Not by way of the pool, where this thread would wait for another to do its work. Those that come may do so late, and
        // stay longer: whoever calls from outside does so from a loop.
        let called = &team.crew.called;
        for _ in called.load(Ordering::Relaxed) + 1..threads {
            called.fetch_add(1, Ordering::Relaxed);
            let team = Arc::clone(&team);
            rayon::spawn(move || {
                let _called = Counted(&team.crew.called);
                team.watch(LINGER);
            });
        }
        return f();
    }
    let (mut f, mut result) = (Some(f), None);
    team.gather(threads, &mut || result = f.take().map(|f| f()));
    result.unwrap_or_else(|| unreachable!("the leader is the first of those who gather"))
}

/// Cores that this process may use.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(usize::MAX, usize::from))
}

impl Leader {
    fn worth(&self, cycles: f64) -> usize {
        let awake = (cycles / WORTH_AWAKE) as usize;
        let threads = self.threads.get();
        if threads > 0 {
            return awake.min(threads);
        }
        let worth = (cycles / WORTH) as usize;
        // The size of the pool is asked for only when it matters: asking starts rayon's global pool.
        let woken = if worth < 2 { worth } else { worth.min(rayon::current_num_threads()).min(cores()) };
        woken.max(awake.min(self.team.crew.seated.load(Ordering::Relaxed).count_ones() as usize))
    }

    /// Begins to lead so many threads, or with 0 ends it.
    fn set(&self, threads: usize) {
        self.threads.set(threads);
        self.team.board.leading.store(threads > 0, Ordering::Release);
    }
}

/// What a leader and those that watch it know of each other.
struct Team {
    board: Board,
    crew: Crew,
}

/// What the leader writes.
#[repr(align(128))] // Two cache lines, which are fetched together, so that nobody waits for what others write.
struct Board {
    leading: AtomicBool,
    /// Odd while there is a job.
    turn: AtomicUsize,
    job: AtomicPtr<Job<'static>>,
}

/// What the others write: how many have been called, who is here, and how many may be at the job.
#[repr(align(128))]
struct Crew {
    called: AtomicUsize,
    /// Seats taken, a bit each; the lowest is the leader's.
    seated: AtomicU64,
    working: AtomicUsize,
}

/// Shared work: parts, as many in a row for each seat.
#[repr(align(128))]
struct Job<'a> {
    /// How many of a seat's have been taken.
    taken: [AtomicUsize; SEATS],
    seats: usize,
    parts: usize,
    run: &'a (dyn Fn(usize) + Sync),
}

impl Job<'_> {
    /// Takes the parts of this seat, so that what it has in its caches from phases before is met again, then those that others
    /// have not taken.
    fn work(&self, seat: usize) {
        for whose in (0..self.seats).map(|other| (seat + other) % self.seats) {
            let first = |seat| seat * self.parts / self.seats;
            let parts = first(whose)..first(whose + 1);
            // Without a look before, whoever has nothing left to do would keep the others from counting.
            while self.taken[whose].load(Ordering::Relaxed) < parts.len() {
                let taken = self.taken[whose].fetch_add(1, Ordering::Relaxed);
                if taken < parts.len() {
                    (self.run)(parts.start + taken);
                }
            }
        }
    }
}

/// Counts a thread in, as long as this lives.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A place in the team, as long as this lives. Who comes when all are taken shares the last one.
struct Seat<'a>(usize, &'a AtomicU64);

impl Seat<'_> {
    fn take(seated: &AtomicU64) -> Seat<'_> {
        let seat = |bits: u64| bits.trailing_ones().min(SEATS as u32 - 1);
        let take = |bits| Some(bits | 1 << seat(bits));
        let before = seated.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Seat(before.map_or(0, seat) as usize, seated)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.1.fetch_and(!(1 << self.0), Ordering::Relaxed);
    }
}

impl Team {
    fn new() -> Team {
        let zero = || AtomicUsize::new(0);
        let job = AtomicPtr::new(ptr::null_mut());
        Team {
            board: Board { leading: AtomicBool::new(false), turn: zero(), job },
            crew: Crew { called: zero(), seated: AtomicU64::new(1), working: zero() },
        }
    }

    fn share(&self, threads: usize, parts: usize, run: &(dyn Fn(usize) + Sync)) {
        struct Close<'a>(&'a Team);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.board.turn.fetch_add(1, Ordering::SeqCst);
                let mut looks = 0;
                while self.0.crew.working.load(Ordering::SeqCst) > 0 {
                    pause(&mut looks);
                }
            }
        }
        let taken = [const { AtomicUsize::new(0) }; SEATS];
        let job = Job { taken, seats: threads.min(SEATS), parts, run };
        self.board.job.store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        self.board.turn.fetch_add(1, Ordering::SeqCst);
        let _close = Close(self);
        job.work(0);
    }

    /// Runs `first` on this thread and has so many less one watch, of the pool whoever comes. Nothing of it is allocated.
    fn gather(&self, threads: usize, first: &mut (dyn FnMut() + Send)) {
        let others = threads / 2;
        if others == 0 {
            return first();
        }
        let this = || self.gather(threads - others, first);
        rayon::join(this, || self.gather(others, &mut || self.watch(Duration::ZERO)));
    }

    /// Takes part in every job, until the leader has not led for so long.
    fn watch(&self, linger: Duration) {
        let seat = Seat::take(&self.crew.seated);
        let (mut seen, mut looks, mut idle) = (0, 0, None);
        loop {
            let turn = self.board.turn.load(Ordering::Relaxed);
            if turn % 2 == 1 && turn != seen {
                let _working = Counted::new(&self.crew.working);
                if self.board.turn.load(Ordering::SeqCst) == turn {
                    // SAFETY: the job is on the stack of the leader, in `share`, which closes the turn and then waits until
                    // nobody is working before it returns. The turn was still open after this thread was counted in, and
                    // all of this is in one order: so the leader will see it counted.
                    unsafe { &*self.board.job.load(Ordering::Relaxed) }.work(seat.0);
                }
                (seen, looks, idle) = (turn, 0, None);
            } else if self.board.leading.load(Ordering::Relaxed) {
                pause(&mut looks);
                idle = None;
            } else if idle.get_or_insert_with(Instant::now).elapsed() >= linger {
                return;
            } else {
                // Others may need this thread now.
                rayon::yield_now();
                std::hint::spin_loop();
            }
        }
    }
}

/// Passes a moment: at first on this core, later by letting others have it.
fn pause(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
}
