//! Pairing and the peak against brute force: threads of a simulated program run against a simulated allocator that hands freed
//! addresses out again at once, their hits interleaved in every order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use tracer_common::{
    abi::Block,
    counters::Counter,
    pairing::{Put, Request, Returned, Tables, Thread, can_only_fail, requested_bytes},
    peak::{ScopePeak, StackPeak},
};

const N_THREADS: usize = 3;
const N_STACKS: u32 = 4;
const TRAMPOLINE: u64 = 0x7fff_ffff_e000;
const CALL_SITE: u64 = 0x40_1234;

/// The tables as the kernel has them, and the log of all moments that a snapshot could have seen.
#[derive(Default)]
struct Traced {
    blocks: HashMap<u64, Block>,
    capacity: Option<usize>,
    counters: HashMap<Counter, u64>,
    scope: ScopePeak,
    stacks: BTreeMap<u32, (StackPeak, u64)>,
    moments: Vec<BTreeMap<u32, u64>>,
    now_ns: u64,
    forked: bool,
}

impl Traced {
    fn count(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or(0)
    }

    fn live(&self) -> BTreeMap<u32, u64> {
        let live = self.stacks.iter().map(|(&stack, (peak, _))| (stack, peak.live_bytes));
        live.filter(|&(_, bytes)| bytes > 0).collect()
    }

    fn at_peak(&self) -> BTreeMap<u32, u64> {
        let at_peak = self.stacks.iter().map(|(&stack, (peak, _))| (stack, peak.at_peak(self.scope.epoch).0));
        at_peak.filter(|&(_, bytes)| bytes > 0).collect()
    }

    /// The first moment of the highest total.
    fn brute_force_peak(&self) -> BTreeMap<u32, u64> {
        let mut best = BTreeMap::new();
        for moment in &self.moments {
            if moment.values().sum::<u64>() > best.values().sum::<u64>() {
                best.clone_from(moment);
            }
        }
        best
    }
}

impl Tables for Traced {
    fn take(&mut self, address: u64) -> Option<Block> {
        self.blocks.remove(&address)
    }

    fn put(&mut self, address: u64, block: Block) -> Put {
        if self.capacity.is_some_and(|capacity| self.blocks.len() >= capacity && !self.blocks.contains_key(&address)) {
            return Put::Full;
        }
        self.blocks.insert(address, block).map_or(Put::Done, Put::Replaced)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn account(&mut self, gone: Option<Block>, came: Option<Block>) {
        let bytes = |block: Option<Block>| block.map_or(0, |block| block.size as i64);
        let new_peak = self.scope.change(bytes(came) - bytes(gone));
        let epoch = self.scope.epoch;
        let mut before = Vec::new();
        if let Some(block) = gone {
            before.push((block.stack, -(block.size as i64), -1));
        }
        if let Some(block) = came {
            before.push((block.stack, block.size as i64, 1));
            self.stacks.entry(block.stack).or_default().1 += block.size;
        }
        for (stack, bytes, count) in before {
            self.stacks.entry(stack).or_default().0.change(epoch, new_peak, bytes, count);
        }
        let live = self.live();
        self.moments.push(live);
    }

    fn is_forked(&self) -> bool {
        self.forked
    }

    fn bump(&mut self, counter: Counter, by: u64) {
        *self.counters.entry(counter).or_default() += by;
    }
}

/// What a program asks for next.
#[derive(Clone, Copy, Debug)]
enum Call {
    Malloc,
    Calloc { count: u64 },
    Realloc { pick: prop::sample::Index },
    ReallocNull,
    ReallocUnknown,
    Free { pick: prop::sample::Index },
    FreeNull,
    FreeUnknown,
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent things that befall a call")]
struct Action {
    thread: usize,
    call: Call,
    size_bytes: u64,
    stack: u32,
    fails: bool,
    /// The function calls another one of its family.
    nested: bool,
    /// The function jumps to another one of its family.
    tail_call: bool,
    /// The call is left by longjmp before the allocator did anything.
    lost: bool,
    sp: u64,
}

fn action() -> impl Strategy<Value = Action> {
    let call = prop_oneof![
        4 => Just(Call::Malloc),
        1 => prop_oneof![Just(3), Just(u64::MAX / 2)].prop_map(|count| Call::Calloc { count }),
        4 => any::<prop::sample::Index>().prop_map(|pick| Call::Realloc { pick }),
        1 => Just(Call::ReallocNull),
        1 => Just(Call::ReallocUnknown),
        3 => any::<prop::sample::Index>().prop_map(|pick| Call::Free { pick }),
        1 => Just(Call::FreeNull),
        1 => Just(Call::FreeUnknown),
    ];
    let flags = (prop::bool::weighted(0.1), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.05));
    (0..N_THREADS, call, prop_oneof![1 => Just(0), 9 => 1u64..500], 0..N_STACKS, flags, 0u64..8).prop_map(
        |(thread, call, size_bytes, stack, (fails, nested, tail_call, lost), depth)| Action {
            thread,
            call,
            size_bytes,
            stack,
            fails,
            nested,
            tail_call,
            lost,
            sp: 0x7ffd_0000_1000 - depth * 64,
        },
    )
}

/// Of a block whose call has not returned yet.
const NOT_BORN: u64 = u64::MAX;

/// A simulated thread between the hits of one call.
#[derive(Clone, Copy, Debug, Default)]
enum Progress {
    #[default]
    Idle,
    Entered(Action, Request),
    /// What the call returns, and the block that is the program's again when it has returned.
    Acted(Action, u64, u64),
}

/// The truth: what the allocator did.
#[derive(Default)]
struct Program {
    heap: BTreeMap<u64, Block>,
    /// Blocks that no call works on, which the next one may free.
    idle: Vec<u64>,
    free_list: Vec<u64>,
    n_fresh: u64,
    allocated: BTreeMap<u32, u64>,
    failed: u64,
    lost: u64,
    frees_of_null: u64,
    frees_unknown: u64,
    reallocs_unknown: u64,
    reallocs: u64,
    next_unknown: u64,
    /// Blocks of the process that this one was forked from, as far as they are still here.
    inherited: BTreeSet<u64>,
    frees_inherited: u64,
    /// Frees that a free made.
    nested_frees: u64,
    traced: Traced,
    threads: [(Thread, Progress, u64); N_THREADS],
    /// Highest total at the end of a call.
    peak_bytes: u64,
}

impl Program {
    fn unknown(&mut self) -> u64 {
        self.next_unknown += 16;
        0x10_0000 + self.next_unknown
    }

    fn allocate(&mut self, size_bytes: u64, stack: u32) -> u64 {
        let address = self.free_list.pop().unwrap_or_else(|| {
            self.n_fresh += 1;
            0x5000_0000 + 16 * self.n_fresh
        });
        self.heap.insert(address, Block { size: size_bytes, born_ns: NOT_BORN, stack, _pad: 0 });
        *self.allocated.entry(stack).or_default() += size_bytes;
        address
    }

    /// A process that begins with a copy of this one's memory: its one thread is in no call.
    fn fork(&self) -> Self {
        Self {
            heap: self.heap.clone(),
            idle: self.idle.clone(),
            free_list: self.free_list.clone(),
            n_fresh: self.n_fresh,
            inherited: self.heap.keys().copied().collect(),
            traced: Traced { forked: true, now_ns: self.traced.now_ns, ..Traced::default() },
            ..Self::default()
        }
    }

    /// A block that the trace of this process does not know ends.
    fn end_unknown(&mut self, address: u64, reallocated: bool) {
        self.inherited.remove(&address);
        if self.traced.forked {
            self.frees_inherited += 1;
        } else if reallocated {
            self.reallocs_unknown += 1;
        } else {
            self.frees_unknown += 1;
        }
    }

    /// Whether the trace of this process knows a block.
    fn knows(&self, address: u64) -> bool {
        self.heap.contains_key(&address) && !self.inherited.contains(&address)
    }

    fn release(&mut self, address: u64) {
        if self.heap.remove(&address).is_some() {
            self.free_list.push(address);
        }
    }

    /// One hit, or one deed of the allocator, of one thread.
    fn advance(&mut self, action: Action) {
        self.traced.now_ns += 1;
        let (mut thread, progress, floor) = self.threads[action.thread];
        let next = match progress {
            Progress::Idle => {
                // After a longjmp the program is further up its stack than the lost call was.
                let action = Action { sp: action.sp.max(floor), ..action };
                self.begin(&mut thread, action)
            }
            Progress::Entered(action, request) => self.act(&mut thread, action, request),
            Progress::Acted(action, pointer, block) => {
                thread.leave(&mut self.traced, action.sp + 8, Returned::Pointer(pointer));
                if action.tail_call {
                    thread.leave(&mut self.traced, action.sp + 8, Returned::Pointer(pointer));
                }
                if let Some(block) = self.heap.get_mut(&pointer) {
                    // The allocator handed it out in this call: it is the program's from here on.
                    block.born_ns = self.traced.now_ns;
                }
                if self.heap.contains_key(&block) {
                    self.idle.push(block);
                }
                Progress::Idle
            }
        };
        let floor = match (progress, next) {
            (Progress::Entered(action, _), Progress::Idle) if action.lost => action.sp,
            (Progress::Idle, Progress::Entered(..)) => 0,
            _ => floor,
        };
        self.threads[action.thread] = (thread, next, floor);
        self.peak_bytes = self.peak_bytes.max(self.heap.values().map(|block| block.size).sum());
    }

    fn pick(&mut self, pick: prop::sample::Index) -> Option<u64> {
        (!self.idle.is_empty()).then(|| self.idle.swap_remove(pick.index(self.idle.len())))
    }

    fn begin(&mut self, thread: &mut Thread, action: Action) -> Progress {
        let mut request =
            Request { size_bytes: action.size_bytes, old_pointer: 0, is_realloc: false, stack: action.stack };
        match action.call {
            Call::Malloc => {}
            Call::Calloc { count } => request.size_bytes = requested_bytes(count, action.size_bytes.max(3)),
            Call::ReallocNull => request.is_realloc = true,
            Call::Realloc { pick } => {
                let Some(old_pointer) = self.pick(pick) else { return Progress::Idle };
                (request.is_realloc, request.old_pointer) = (true, old_pointer);
            }
            Call::ReallocUnknown => (request.is_realloc, request.old_pointer) = (true, self.unknown()),
            Call::Free { .. } | Call::FreeNull | Call::FreeUnknown => {
                let pointer = match action.call {
                    Call::Free { pick } => self.pick(pick),
                    Call::FreeUnknown => Some(self.unknown()),
                    _ => None,
                };
                match (action.call, pointer) {
                    (Call::Free { .. }, None) => return Progress::Idle,
                    (Call::FreeNull, _) => self.frees_of_null += 1,
                    (_, Some(pointer)) if !self.knows(pointer) => self.end_unknown(pointer, false),
                    _ => {}
                }
                thread.free(&mut self.traced, action.sp, CALL_SITE, pointer.unwrap_or(0));
                if action.nested && pointer.is_some() {
                    self.nested_frees += 1;
                    let sp = if action.tail_call { action.sp } else { action.sp - 128 };
                    thread.free(&mut self.traced, sp, CALL_SITE, pointer.unwrap_or(0));
                }
                self.release(pointer.unwrap_or(0));
                return Progress::Idle;
            }
        }
        thread.enter(&mut self.traced, action.sp, CALL_SITE, request);
        if action.tail_call {
            thread.enter(&mut self.traced, action.sp, TRAMPOLINE, Request { stack: 99, ..request });
        }
        if action.nested {
            let sp = action.sp - 128;
            thread.enter(&mut self.traced, sp, CALL_SITE, Request { is_realloc: false, old_pointer: 0, ..request });
            thread.leave(&mut self.traced, sp + 8, Returned::Pointer(0x66_6660));
            thread.free(&mut self.traced, sp, CALL_SITE, 0x66_6660);
        }
        Progress::Entered(action, request)
    }

    fn act(&mut self, thread: &mut Thread, action: Action, request: Request) -> Progress {
        let Request { size_bytes, old_pointer, is_realloc, stack } = request;
        let is_there = self.heap.contains_key(&old_pointer);
        let known = self.knows(old_pointer);
        if action.lost {
            self.lost += 1;
            if is_there {
                self.idle.push(old_pointer);
            }
            // Noticed at the thread's next call. Until then another thread's free of the old block finds nothing, so here
            // a realloc's loss is noticed at once.
            if known {
                thread.lose(&mut self.traced);
            }
            return Progress::Idle;
        }
        let pointer = if is_realloc && size_bytes == 0 && old_pointer != 0 {
            // glibc: realloc(p, 0) frees.
            if !known {
                self.end_unknown(old_pointer, false);
            }
            self.release(old_pointer);
            0
        } else if action.fails || can_only_fail(size_bytes) {
            self.failed += 1;
            return Progress::Acted(action, 0, old_pointer);
        } else {
            if old_pointer != 0 && !known {
                self.end_unknown(old_pointer, true);
            }
            self.reallocs += u64::from(known);
            // Every second one in place.
            if is_there && size_bytes % 2 == 0 {
                self.release(old_pointer);
            }
            let pointer = self.allocate(size_bytes, stack);
            if is_there && pointer != old_pointer {
                self.release(old_pointer);
            }
            pointer
        };
        Progress::Acted(action, pointer, pointer)
    }

    /// Lets every thread finish its call.
    fn settle(&mut self) {
        for n in 0..N_THREADS {
            while let (_, Progress::Entered(action, _) | Progress::Acted(action, ..), _) = self.threads[n] {
                self.advance(action);
            }
            let (mut thread, ..) = self.threads[n];
            thread.lose(&mut self.traced);
        }
    }
}

fn is_free(call: Call) -> bool {
    matches!(call, Call::Free { .. } | Call::FreeNull | Call::FreeUnknown)
}

fn run(actions: &[Action]) -> Program {
    let mut program = Program::default();
    for &action in actions {
        program.advance(action);
    }
    program.settle();
    program
}

fn by_stack<'a>(blocks: impl Iterator<Item = &'a Block>) -> BTreeMap<u32, u64> {
    let mut bytes = BTreeMap::new();
    for block in blocks.filter(|block| block.size > 0) {
        *bytes.entry(block.stack).or_default() += block.size;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn after_quiescence_everything_equals_the_truth(actions in prop::collection::vec(action(), 0..120)) {
        let program = run(&actions);
        let traced = &program.traced;

        let blocks: BTreeMap<u64, Block> = traced.blocks.iter().map(|(&address, &block)| (address, block)).collect();
        // Times of birth included: a block that a failed or lost realloc left alone keeps its own.
        prop_assert_eq!(&blocks, &program.heap);
        prop_assert_eq!(traced.live(), by_stack(program.heap.values()));
        prop_assert_eq!(traced.scope.current_bytes, program.heap.values().map(|block| block.size).sum::<u64>());
        let counts: u64 = traced.stacks.values().map(|(peak, _)| peak.live_count).sum();
        prop_assert_eq!(counts, program.heap.len() as u64);
        for (stack, &allocated) in &program.allocated {
            prop_assert_eq!(traced.stacks.get(stack).map_or(0, |totals| totals.1), allocated);
        }
        for (counter, expected) in [
            (Counter::Failed, program.failed),
            (Counter::LostReturns, program.lost),
            (Counter::FreesOfNull, program.frees_of_null),
            (Counter::FreesUnknown, program.frees_unknown),
            (Counter::ReallocsUnknown, program.reallocs_unknown),
            (Counter::Reallocs, program.reallocs),
            (Counter::MissedFrees, 0),
            (Counter::UnpairedReturns, 0),
            (Counter::BlocksFull, 0),
            (Counter::FreesInherited, 0),
        ] {
            prop_assert_eq!(traced.count(counter), expected, "{}", counter.name());
        }
    }

    /// made = live + freed for each of them, whatever both do to blocks at equal addresses; the ends of inherited blocks are counted.
    #[test]
    fn a_fork_makes_two_processes_whose_balances_close(
        before in prop::collection::vec(action(), 0..60),
        parents in prop::collection::vec(action(), 0..60),
        childs in prop::collection::vec(action(), 0..60),
    ) {
        let mut parent = run(&before);
        let mut child = parent.fork();
        for (program, actions) in [(&mut parent, &parents), (&mut child, &childs)] {
            for &action in actions {
                program.advance(action);
            }
            program.settle();
        }
        for program in [&parent, &child] {
            let traced = &program.traced;
            let blocks: BTreeMap<u64, Block> = traced.blocks.iter().map(|(&address, &block)| (address, block)).collect();
            let own = program.heap.iter().filter(|(address, _)| !program.inherited.contains(address));
            prop_assert_eq!(blocks, own.map(|(&address, &block)| (address, block)).collect::<BTreeMap<_, _>>());
            prop_assert_eq!(traced.count(Counter::FreesInherited), program.frees_inherited);
            prop_assert_eq!(traced.count(Counter::FreesUnknown), program.frees_unknown);
            prop_assert_eq!(traced.count(Counter::ReallocsUnknown), program.reallocs_unknown);
            prop_assert_eq!(traced.count(Counter::MissedFrees), 0);
        }
    }

    /// A free that calls or jumps to the next one is one free, of known blocks and of others.
    #[test]
    fn wrapped_frees_are_nested(actions in prop::collection::vec(action(), 0..120)) {
        let calls_none = |action: &Action| Action { nested: action.nested && is_free(action.call), tail_call: action.tail_call && is_free(action.call), ..*action };
        let program = run(&actions.iter().map(calls_none).collect::<Vec<_>>());
        prop_assert_eq!(program.traced.count(Counter::Nested), program.nested_frees);
    }

    /// Threads add what their calls in flight hold; one thread's peak is exact.
    #[test]
    fn one_threads_peak_is_the_truth(actions in prop::collection::vec(action(), 0..120)) {
        let actions: Vec<_> = actions.into_iter().map(|action| Action { thread: 0, ..action }).collect();
        let program = run(&actions);
        prop_assert_eq!(program.traced.scope.peak_bytes, program.peak_bytes);
    }

    #[test]
    fn the_peaks_distribution_is_that_of_its_first_moment(actions in prop::collection::vec(action(), 0..120)) {
        let program = run(&actions);
        prop_assert_eq!(program.traced.at_peak(), program.traced.brute_force_peak());
        let peak: u64 = program.traced.at_peak().values().sum();
        prop_assert_eq!(peak, program.traced.scope.peak_bytes);
    }

    /// A full table loses blocks, by count and bytes, and never makes totals negative.
    #[test]
    fn a_full_table_counts_what_it_loses(actions in prop::collection::vec(action(), 0..120), capacity in 0usize..8) {
        let mut program = Program { traced: Traced { capacity: Some(capacity), ..Traced::default() }, ..Program::default() };
        for &action in &actions {
            program.advance(action);
        }
        program.settle();
        let traced = &program.traced;
        prop_assert!(traced.blocks.len() <= capacity);
        prop_assert_eq!(traced.live(), by_stack(traced.blocks.values()));
        prop_assert_eq!(traced.scope.current_bytes, traced.blocks.values().map(|block| block.size).sum::<u64>());
    }
}

fn request(size_bytes: u64, old_pointer: u64, stack: u32) -> Request {
    Request { size_bytes, old_pointer, is_realloc: old_pointer != 0, stack }
}

fn call(thread: &mut Thread, traced: &mut Traced, request: Request, returned: u64) {
    thread.enter(traced, 0x7ffd_0000, CALL_SITE, request);
    thread.leave(traced, 0x7ffd_0008, Returned::Pointer(returned));
}

#[test]
fn a_moving_realloc_never_shows_both_blocks() {
    let (mut traced, mut thread) = (Traced::default(), Thread::default());
    call(&mut thread, &mut traced, request(100, 0, 1), 0x1000);

    call(&mut thread, &mut traced, request(150, 0x1000, 2), 0x2000);

    assert_eq!((traced.scope.current_bytes, traced.scope.peak_bytes), (150, 150));
    assert_eq!(traced.at_peak(), BTreeMap::from([(2, 150)]));
}

#[test]
fn an_address_handed_out_again_during_a_realloc_is_another_block() {
    let (mut traced, [mut moving, mut other]) = (Traced::default(), [Thread::default(); 2]);
    call(&mut other, &mut traced, request(100, 0, 1), 0x1000);

    moving.enter(&mut traced, 0x7ffd_0000, CALL_SITE, request(200, 0x1000, 2));
    call(&mut other, &mut traced, request(7, 0, 3), 0x1000);
    moving.leave(&mut traced, 0x7ffd_0008, Returned::Pointer(0x2000));

    assert_eq!(traced.live(), BTreeMap::from([(2, 200), (3, 7)]));
    assert_eq!(traced.count(Counter::MissedFrees), 0);
}

#[test]
fn an_address_returned_while_live_closes_the_old_block() {
    let (mut traced, mut thread) = (Traced::default(), Thread::default());
    call(&mut thread, &mut traced, request(100, 0, 1), 0x1000);

    call(&mut thread, &mut traced, request(30, 0, 2), 0x1000);

    assert_eq!(traced.live(), BTreeMap::from([(2, 30)]));
    assert_eq!((traced.count(Counter::MissedFrees), traced.scope.peak_bytes), (1, 100));
}

/// A realloc whose return was lost had moved the block: its address comes back in another call.
#[test]
fn a_lost_realloc_ends_its_old_block_when_the_address_is_handed_out_again() {
    let (mut traced, mut thread) = (Traced::default(), Thread::default());
    call(&mut thread, &mut traced, request(100, 0, 1), 0x1000);
    thread.enter(&mut traced, 0x7ffd_0000, CALL_SITE, request(200, 0x1000, 2));

    call(&mut thread, &mut traced, request(5, 0, 3), 0x3000);
    assert_eq!(traced.live(), BTreeMap::from([(1, 100), (3, 5)]));
    call(&mut thread, &mut traced, request(6, 0, 3), 0x1000);

    assert_eq!(traced.live(), BTreeMap::from([(3, 11)]));
    assert_eq!((traced.count(Counter::LostReturns), traced.count(Counter::MissedFrees)), (1, 1));
}

#[test]
fn a_return_further_up_ends_the_lost_call() {
    let (mut traced, mut thread) = (Traced::default(), Thread::default());
    thread.enter(&mut traced, 0x7ffd_0000, CALL_SITE, request(10, 0, 1));

    thread.leave(&mut traced, 0x7ffd_0108, Returned::Pointer(0x1000));
    thread.enter(&mut traced, 0x7ffc_ff00, CALL_SITE, request(20, 0, 1));
    thread.leave(&mut traced, 0x7ffc_ff08, Returned::Pointer(0x2000));

    assert_eq!(traced.live(), BTreeMap::from([(1, 20)]));
    assert_eq!((traced.count(Counter::LostReturns), traced.count(Counter::UnpairedReturns)), (1, 1));
}

#[test]
fn an_unreadable_out_pointer_is_counted_and_nothing_else() {
    let (mut traced, mut thread) = (Traced::default(), Thread::default());
    thread.enter(&mut traced, 0x7ffd_0000, CALL_SITE, request(10, 0, 1));

    thread.leave(&mut traced, 0x7ffd_0008, Returned::OutUnreadable);

    assert_eq!((traced.live().len(), traced.count(Counter::OutUnreadable)), (0, 1));
}

/// The probes were taken away while a realloc ran, and put back: its return is not seen, and by then the thread may be deeper on
/// its stack than that call was, where it would pass for a nested call.
#[test]
fn a_call_in_flight_at_a_pause_hides_no_later_call() {
    let (mut traced, mut thread) = (Traced::default(), Thread::default());
    call(&mut thread, &mut traced, request(100, 0, 1), 0x1000);
    thread.enter(&mut traced, 0x7ffd_0000, CALL_SITE, request(200, 0x1000, 2));

    thread.lose(&mut traced);
    thread.enter(&mut traced, 0x7ffc_0000, CALL_SITE, request(7, 0, 3));
    thread.leave(&mut traced, 0x7ffc_0008, Returned::Pointer(0x3000));

    assert_eq!(traced.live(), BTreeMap::from([(1, 100), (3, 7)]));
    assert_eq!((traced.count(Counter::LostReturns), traced.count(Counter::Nested)), (1, 0));
}
