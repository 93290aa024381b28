//! Interleaved rounds.

use std::thread;
use std::time::{Duration, Instant};

use crate::ours::Call;

/// One call of what is timed.
pub type Contender<'a> = Box<dyn FnMut() + 'a>;

/// A call whose result nobody looks at.
pub fn contender(mut call: Call) -> Contender {
    Box::new(move || {
        call();
    })
}

/// A sample repeats its call for at least this long: far above the clock's resolution and the cost of reading it.
const SAMPLE: Duration = Duration::from_micros(500);

/// How long a contender is called before each of its samples, and how often, for a while at most: what the one before has driven out
/// of L3 is not all back after a call or two.
const SETTLING: (Duration, u32, Duration) = (Duration::from_millis(2), 16, Duration::from_millis(20));

/// How long threads that shared the work of one contender may look out for more of it, on cores that the next one needs. (Two commits
/// of percycle in one process even share the pool: without it, the first one takes 4 to 9 % longer.)
const REST: Duration = Duration::from_micros(300);

/// What the rounds of a race measured.
pub struct Timing {
    /// Seconds of a call, for each contender and round.
    pub seconds: Vec<Vec<f64>>,
    /// FLOP per second of one core's FMA units, for each round.
    pub peaks: Vec<f64>,
}

impl Timing {
    /// How many times as long as contender `other` contender `one` took: the median over the rounds.
    pub fn ratio(&self, one: usize, other: usize) -> f64 {
        median(self.seconds[one].iter().zip(&self.seconds[other]).map(|(one, other)| one / other))
    }

    /// The median share of the peak that a contender reached with calls of so many FLOP.
    pub fn share_of_peak(&self, contender: usize, flops: f64) -> f64 {
        median(self.seconds[contender].iter().zip(&self.peaks).map(|(time, peak)| flops / time / peak))
    }
}

/// Times all contenders in up to `rounds` rounds, in fewer (but no less than 3) once `limit` is over.
pub fn race(contenders: Vec<Contender>, rounds: usize, limit: Duration) -> Timing {
    let start = Instant::now();
    let mut samplers: Vec<Sampler> = contenders.into_iter().map(Sampler::new).collect();
    let mut timing = Timing { seconds: vec![Vec::new(); samplers.len()], peaks: Vec::new() };
    for round in 0..rounds {
        if round >= 3 && start.elapsed() > limit {
            break;
        }
        timing.peaks.push(percycle::fma_peak(percycle::Isa::current()));
        for turn in 0..samplers.len() {
            // Each round starts with another one: no contender always runs in the wake of the same.
            let i = (round + turn) % samplers.len();
            if rayon::current_num_threads() > 1 {
                thread::sleep(REST);
            }
            samplers[i].settle();
            timing.seconds[i].push(samplers[i].seconds());
        }
    }
    timing
}

/// A contender, and how many of its calls make a sample long enough.
pub struct Sampler<'a> {
    contender: Contender<'a>,
    calls: u32,
}

impl<'a> Sampler<'a> {
    /// Calls it until that number is known. The first call is not counted: it may allocate.
    pub fn new(mut contender: Contender<'a>) -> Self {
        contender();
        let mut sampler = Sampler { contender, calls: 1 };
        while sampler.seconds() * f64::from(sampler.calls) < SAMPLE.as_secs_f64() && sampler.calls < 1 << 20 {
            sampler.calls *= 2;
        }
        sampler
    }

    /// Calls it for a while. Whoever calls again and again finds its operands where its last call left them, and its threads
    /// awake; a sample that is a single call would find what the contender before it left.
    pub fn settle(&mut self) {
        let (least, calls, most) = SETTLING;
        let (start, mut called) = (Instant::now(), 0);
        while start.elapsed() < least || (called < calls && start.elapsed() < most) {
            (self.contender)();
            called += 1;
        }
    }

    /// Seconds that a call takes, over a sample.
    pub fn seconds(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..self.calls {
            (self.contender)();
        }
        start.elapsed().as_secs_f64() / f64::from(self.calls)
    }
}

/// The middle one, or NaN of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
