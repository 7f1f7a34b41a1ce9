//! Rules survive packing, and one step goes where the rule says.

use proptest::prelude::*;
use tracer_common::unwind::{Regs, RuleKind, Step, UCONTEXT_RBP, UCONTEXT_RIP, UCONTEXT_RSP, UnwindRule, step};

const REGS: Regs = Regs { pc: 0x40_1000, sp: 0x7ffd_1000, bp: 0x7ffd_2000 };

/// Each word of the stack is a function of its address.
fn word(addr: u64) -> u64 {
    addr.rotate_left(1) | 1 << 46
}

fn step_from(rule: UnwindRule, mut regs: Regs) -> (Step, Regs) {
    let done = step(rule.pack(), &mut regs, |addr| Some(word(addr)));
    (done, regs)
}

proptest! {
    #[test]
    fn packing_keeps_the_rule(kind in 0u8..9, cfa_off: i32, rbp_off: i16) {
        let rule = UnwindRule { kind: RuleKind::from_u8(kind), cfa_off, rbp_off };
        prop_assert_eq!(rule.pack().unpack(), rule);
        prop_assert_eq!(rule.pack().cfa_off() as i64, i64::from(cfa_off));
        prop_assert_eq!(rule.pack().rbp_off() as i64, i64::from(rbp_off));
        prop_assert_eq!(rule.pack().0 >> 56, 0);
    }

    #[test]
    fn a_step_moves_up_or_says_why_not(kind: u8, cfa_off: i32, rbp_off: i16, pc: u64, sp: u64, bp: u64, memory: u64) {
        let rule = tracer_common::unwind::PackedRule(
            UnwindRule { kind: RuleKind::None, cfa_off, rbp_off }.pack().0 | u64::from(kind) << 48,
        );
        let mut regs = Regs { pc, sp, bp };
        let done = step(rule, &mut regs, |addr| (addr != memory).then_some(addr ^ memory));
        if done == Step::Caller {
            prop_assert!(regs.sp > sp && regs.pc != 0);
        }
    }

    #[test]
    fn frames_by_rsp_and_rbp(cfa_off in 8i32..4096, rbp_off in -512i16..-1) {
        let rule = |kind, rbp_off| UnwindRule { kind, cfa_off, rbp_off };
        let by_rsp = REGS.sp + cfa_off as u64;
        let by_rbp = REGS.bp + cfa_off as u64;
        let saved = |cfa: u64| word(cfa.wrapping_add_signed(rbp_off.into()));
        prop_assert_eq!(
            step_from(rule(RuleKind::Rsp, 0), REGS),
            (Step::Caller, Regs { pc: word(by_rsp - 8), sp: by_rsp, bp: REGS.bp })
        );
        prop_assert_eq!(
            step_from(rule(RuleKind::Rbp, rbp_off), REGS),
            (Step::Caller, Regs { pc: word(by_rbp - 8), sp: by_rbp, bp: saved(by_rbp) })
        );
    }
}

/// `push %rbp; mov %rsp,%rbp; push %r10`: the CFA lies at rbp − 8, the caller's rbp at rbp + 0.
#[test]
fn a_realigned_frame_keeps_rbp_where_rbp_points() {
    let cfa = word(REGS.bp - 8);

    let done = step_from(UnwindRule { kind: RuleKind::DerefRbp, cfa_off: -8, rbp_off: 0 }, REGS);

    assert_eq!(done, (Step::Caller, Regs { pc: word(cfa - 8), sp: cfa, bp: word(REGS.bp) }));
}

/// `.plt`: the first 11 bytes of a 16-byte entry before its `push`, the rest after it.
#[test]
fn a_plt_entry_has_pushed_from_its_threshold_on() {
    let rule = UnwindRule { kind: RuleKind::Plt, cfa_off: 11, rbp_off: 0 };
    for (pc, cfa) in [(0x1020, REGS.sp + 8), (0x102a, REGS.sp + 8), (0x102b, REGS.sp + 16), (0x102f, REGS.sp + 16)] {
        let (done, regs) = step_from(rule, Regs { pc, ..REGS });
        assert_eq!((done, regs.sp, regs.pc), (Step::Caller, cfa, word(cfa - 8)), "{pc:#x}");
    }
}

#[test]
fn a_signal_frame_hands_over_what_it_interrupted() {
    let done = step_from(UnwindRule::of(RuleKind::SignalFrame), REGS);

    let [pc, sp, bp] = [UCONTEXT_RIP, UCONTEXT_RSP, UCONTEXT_RBP].map(|within| word(REGS.sp + within));
    assert_eq!(done, (Step::Interrupted, Regs { pc, sp, bp }));
}

#[test]
fn a_step_that_finds_no_caller_says_why() {
    let rsp = UnwindRule { kind: RuleKind::Rsp, cfa_off: 8, rbp_off: 0 };
    let read_nothing = |rule: UnwindRule| step(rule.pack(), &mut { REGS }, |_| None);
    let zero = |rule: UnwindRule| step(rule.pack(), &mut { REGS }, |_| Some(0));

    assert_eq!(step_from(UnwindRule::of(RuleKind::Root), REGS).0, Step::Root);
    assert_eq!(step_from(UnwindRule::of(RuleKind::None), REGS).0, Step::NoRow);
    assert_eq!(step_from(UnwindRule::of(RuleKind::Unsupported), REGS).0, Step::Unsupported);
    assert_eq!(step_from(UnwindRule { cfa_off: 0, ..rsp }, REGS).0, Step::NoProgress);
    assert_eq!(step_from(UnwindRule { cfa_off: -16, ..rsp }, REGS).0, Step::NoProgress);
    assert_eq!(read_nothing(rsp), Step::ReadFailed);
    assert_eq!(read_nothing(UnwindRule::of(RuleKind::SignalFrame)), Step::ReadFailed);
    assert_eq!(zero(rsp), Step::Root, "a return address of 0");
}
