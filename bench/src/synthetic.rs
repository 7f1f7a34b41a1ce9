//! A large target that does not exist: a program of some thousand functions whose 50 000 allocating call chains share most of
//! their frames, as those of real programs do. What it does follows from a seed.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tracer_common::{
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    snapshot::{
        Counters, Frame, Module, ModuleId, ModuleKind, ModuleMapping, Snapshot, Stack, StackId, StackStats, TargetInfo,
        Totals,
    },
    symbolize::{FrameName, Names},
};

/// Functions of the program and its libraries.
const N_FUNCTIONS: u64 = 6_000;
/// Calls in each function.
const CALLS: u64 = 4;
/// Executable and libraries.
const N_MODULES: u64 = 12;
const MODULE_BYTES: u64 = 1 << 24;

/// The target.
pub struct Synthetic {
    modules: Vec<Arc<Module>>,
    stacks: Vec<StackStats>,
    behaviours: Vec<Behaviour>,
    random: Random,
    blocks: u64,
    peak: Totals,
    n_snapshots: u64,
}

/// What one stack does.
struct Behaviour {
    /// Share of all blocks, in millionths of a millionth.
    share: u64,
    /// Its blocks' size; `None`: any.
    size_bytes: Option<u64>,
    /// Allocations between two snapshots, in percent of the blocks that are live; 0: it is quiet after its start.
    churn_percent: u64,
}

impl Synthetic {
    /// A target of so many stacks that comes to hold about so many blocks.
    pub fn new(stacks: u32, blocks: u64, seed: u64) -> Self {
        let mut random = Random(seed);
        let chains = chains(stacks, &mut random);
        let weights: Vec<u64> = (0..stacks).map(|_| 1 + (1 << random.below(11)) + random.below(8)).collect();
        let sum: u64 = weights.iter().sum();
        let behaviours = weights
            .iter()
            .map(|weight| Behaviour {
                share: weight * 1_000_000_000_000 / sum,
                size_bytes: (random.below(10) < 7).then(|| 16 + random.below(64) * 8 + random.below(2) * 1000),
                churn_percent: if random.below(10) < 2 { 0 } else { 1 + random.below(200) },
            })
            .collect();
        let stacks = (0..)
            .zip(chains)
            .map(|(id, frames)| StackStats {
                id: StackId(id),
                stack: Arc::new(Stack { frames, ..Stack::default() }),
                totals: Totals::default(),
            })
            .collect();
        Self { modules: modules(), stacks, behaviours, random, blocks, peak: Totals::default(), n_snapshots: 0 }
    }

    /// Lives on until the next snapshot.
    pub fn step(&mut self) -> Snapshot {
        self.n_snapshots += 1;
        // It fills over the first ten, and then goes up and down.
        let level = self.blocks * self.n_snapshots.min(10) / 10 * (980 + self.random.below(41)) / 1000;
        let random = &mut self.random;
        for (stack, behaviour) in self.stacks.iter_mut().zip(&self.behaviours) {
            let totals = &mut stack.totals;
            let fills = self.n_snapshots <= 10;
            if !fills && behaviour.churn_percent == 0 && totals.allocated_count > 0 {
                continue;
            }
            let wanted = (u128::from(level) * u128::from(behaviour.share) / 1_000_000_000_000) as u64;
            let wanted = wanted + random.below(wanted / 8 + 2);
            let churn = random.below(wanted * behaviour.churn_percent / 50 + 2);
            let grown = wanted.saturating_sub(totals.current_count);
            let shrunk = totals.current_count.saturating_sub(wanted);
            let (allocated, freed) = (grown + churn, shrunk + churn);
            let mut bytes_of = |count: u64| match behaviour.size_bytes {
                Some(size) => count * size,
                None => count * 200 + random.below(count * 400 + 1),
            };
            let allocated_bytes = bytes_of(allocated);
            let average = |live_bytes: u64, live: u64| live_bytes.checked_div(live).unwrap_or(0);
            let live_bytes = totals.current_bytes + allocated_bytes;
            let freed_bytes = match behaviour.size_bytes {
                Some(size) => freed * size,
                None if freed == totals.current_count + allocated => live_bytes,
                None => freed * average(live_bytes, totals.current_count + allocated),
            };
            totals.current_count = totals.current_count + allocated - freed;
            totals.current_bytes = live_bytes - freed_bytes;
            totals.allocated_count += allocated;
            totals.allocated_bytes += allocated_bytes;
            totals.freed_count += freed;
            totals.freed_bytes += freed_bytes;
            let quick = random.below(churn + 1);
            totals.freed_within_1ms_count += random.below(quick + 1);
            totals.freed_within_1s_count += quick;
        }
        self.snapshot()
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut sums = Totals::default();
        for stack in &self.stacks {
            sums.add(&stack.totals);
        }
        if sums.current_bytes > self.peak.current_bytes {
            self.peak = sums;
            for stack in &mut self.stacks {
                // The peak came a little before the snapshot.
                let back = self.random.below(2) * self.random.below(stack.totals.current_count / 16 + 2);
                let back = back.min(stack.totals.current_count);
                let size = stack.totals.current_bytes.checked_div(stack.totals.current_count).unwrap_or(0);
                stack.totals.peak_count = stack.totals.current_count - back;
                stack.totals.peak_bytes = stack.totals.current_bytes - back * size;
            }
        }
        sums.peak_bytes = self.stacks.iter().map(|stack| stack.totals.peak_bytes).sum();
        sums.peak_count = self.stacks.iter().map(|stack| stack.totals.peak_count).sum();
        let hits = sums.allocated_count;
        Snapshot {
            target: TargetInfo { pid: 4711, comm: "synthetic".into(), exe: None, running: true },
            duration: Duration::from_secs(10 * self.n_snapshots),
            totals: sums,
            counters: Counters(BTreeMap::from([(Counter::HitsEntry, hits), (Counter::HitsReturn, hits)])),
            modules: self.modules.clone(),
            stacks: self.stacks.iter().filter(|stack| stack.totals.allocated_count > 0).cloned().collect(),
            ..Snapshot::default()
        }
    }

    /// Names of all frames: long ones, with up to four functions inlined at an address.
    pub fn names() -> Names {
        let mut random = Random(7);
        let mut names = Names::default();
        let files: Vec<Arc<Path>> = (0..900)
            .map(|n| Arc::from(Path::new(&format!("/home/ci/build/service/src/component_{}/part_{n}.cc", n / 20))))
            .collect();
        let functions: Vec<Arc<str>> = (0..3 * N_FUNCTIONS)
            .map(|n| format!("service::component_{}::Worker<service::Payload_{n}>::handle_request_{n}(service::Request const&, unsigned long)", n / 60).into())
            .collect();
        for function in 0..N_FUNCTIONS {
            for call in 0..CALLS {
                let (module, vaddr) = location(function, call);
                let inlined = random.below(5);
                let mut list: Vec<FrameName> = (0..inlined)
                    .map(|_| FrameName {
                        function: Ok(Arc::clone(&functions[random.below(3 * N_FUNCTIONS) as usize])),
                        file: Some(Arc::clone(&files[random.below(900) as usize])),
                        line: Some(1 + random.below(3000) as u32),
                        inlined: true,
                    })
                    .collect();
                list.push(FrameName {
                    function: Ok(Arc::clone(&functions[function as usize])),
                    file: Some(Arc::clone(&files[(function % 900) as usize])),
                    line: Some((1 + function * 7 % 2900 + call * 11) as u32),
                    inlined: false,
                });
                names.insert(module, vaddr, list.into());
            }
        }
        names
    }
}

/// Where a call lies.
fn location(function: u64, call: u64) -> (ModuleId, FileVaddr) {
    let module = function % N_MODULES;
    (ModuleId(module as u32), FileVaddr(0x1000 + function / N_MODULES * 0x1c7 + call * 0x35))
}

fn frame(function: u64, call: u64) -> Frame {
    let (module, vaddr) = location(function, call);
    let bias = 0x7f00_0000_0000 + u64::from(module.0) * MODULE_BYTES;
    Frame { addr: FrameAddr::Return(UserAddr(bias + vaddr.0 + 1)), location: Some((module, vaddr)) }
}

fn modules() -> Vec<Arc<Module>> {
    (0..N_MODULES)
        .map(|n| {
            let path: std::path::PathBuf = format!("/opt/service/lib/libcomponent_{n}.so").into();
            let bias = 0x7f00_0000_0000 + n * MODULE_BYTES;
            Arc::new(Module {
                kind: ModuleKind::File,
                open_path: path.clone(),
                path,
                deleted: false,
                build_id: Some(vec![n as u8; 20]),
                mappings: vec![ModuleMapping { start: UserAddr(bias), end: UserAddr(bias + MODULE_BYTES), bias }],
            })
        })
        .collect()
}

/// So many different chains of 20 to 40 calls, innermost first. Each call of a function has one callee, one in four (a call by
/// pointer) several.
fn chains(n: u32, random: &mut Random) -> Vec<Vec<Frame>> {
    let mut chains: Vec<Vec<(u64, u64)>> = vec![vec![(0, 0)]];
    let mut known = std::collections::HashSet::new();
    while known.len() < n as usize {
        // It branches off another chain: mostly near its end.
        let base = &chains[random.below(chains.len() as u64) as usize];
        let back = (random.below(12) * random.below(4)).min(base.len() as u64 - 1) as usize;
        let mut chain = base[..base.len() - back].to_vec();
        let last = chain.len() - 1;
        chain[last].1 = random.below(CALLS);
        let depth = 20 + random.below(21) as usize;
        chain.truncate(depth);
        while chain.len() < depth {
            let (function, call) = chain[chain.len() - 1];
            let choice = if call == 3 { random.below(4) } else { 0 };
            let callee = Random(function * 64 + call * 8 + choice).below(N_FUNCTIONS);
            chain.push((callee, random.below(CALLS)));
        }
        if known.insert(chain.clone()) {
            chains.push(chain);
        }
    }
    let frames = |chain: &Vec<(u64, u64)>| chain.iter().rev().map(|&(function, call)| frame(function, call)).collect();
    chains[1..].iter().map(frames).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
