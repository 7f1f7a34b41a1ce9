//! Rules of small functions, by the shape of their code. Every function is the only one with a symbol, at 0x1000.

use tracer_common::unwind::{RuleKind, UnwindRule};

use crate::{
    plan::fixture::{Elf, symbol},
    unwind::module_rows,
};

const NONE: UnwindRule = UnwindRule::of(RuleKind::None);
const ROOT: UnwindRule = UnwindRule::of(RuleKind::Root);

fn rsp(cfa_off: i32, rbp_off: i16) -> UnwindRule {
    UnwindRule { kind: RuleKind::Rsp, cfa_off, rbp_off }
}

fn rbp(cfa_off: i32, rbp_off: i16) -> UnwindRule {
    UnwindRule { kind: RuleKind::Rbp, cfa_off, rbp_off }
}

/// The rules at these offsets.
fn check(code: &[u8], expected: &[(u32, UnwindRule)]) {
    let elf = Elf { code: code.to_vec(), symbols: vec![symbol("f", 0x1000)], ..Elf::default() };
    let rows = module_rows(&elf.bytes()).expect("an ELF file");
    for &(offset, rule) in expected {
        assert_eq!(rows.lookup(offset).unwrap_or(NONE), rule, "+{offset:#x} of {:x?}", rows.rows);
    }
}

#[test]
fn pushes_and_subtractions_are_counted_and_taken_back() {
    // 00: push rbp; 01: sub rsp, 16; 05: call rax; 07: add rsp, 16; 0b: pop rbp; 0c: ret
    let code = [0x55, 0x48, 0x83, 0xec, 0x10, 0xff, 0xd0, 0x48, 0x83, 0xc4, 0x10, 0x5d, 0xc3, 0xcc];
    let rules = [(0, rsp(8, 0)), (1, rsp(16, -16)), (5, rsp(32, -16)), (0xb, rsp(16, -16)), (0xc, rsp(8, 0))];
    check(&code, &rules);
    check(&code, &[(0xd, NONE)]);
}

#[test]
fn rbp_may_be_saved_by_a_move() {
    // 00: sub rsp, 24; 04: mov [rsp+8], rbp; 09: mov ebp, edi; 0b: call rax; 0d: mov rbp, [rsp+8]; 12: add rsp, 24; 16: ret
    let code = [
        0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x6c, 0x24, 0x08, 0x89, 0xfd, 0xff, 0xd0, 0x48, 0x8b, 0x6c, 0x24, 0x08,
        0x48, 0x83, 0xc4, 0x18, 0xc3,
    ];
    check(&code, &[(4, rsp(32, 0)), (9, rsp(32, -24)), (0xb, rsp(32, -24)), (0x16, rsp(8, 0))]);
}

#[test]
fn a_stack_of_unknown_size_is_walked_by_rbp() {
    // 00: push rbp; 01: mov rbp, rsp; 04: sub rsp, rdi; 07: call rax; 09: leave; 0a: ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x29, 0xfc, 0xff, 0xd0, 0xc9, 0xc3];
    check(&code, &[(4, rsp(16, -16)), (7, rbp(16, -16)), (0xa, rsp(8, 0))]);
}

#[test]
fn without_rbp_a_stack_of_unknown_size_has_no_rule() {
    // 00: sub rsp, rdi; 03: call rax; 05: ret
    check(&[0x48, 0x29, 0xfc, 0xff, 0xd0, 0xc3], &[(0, rsp(8, 0)), (3, NONE), (5, NONE)]);
}

#[test]
fn a_lost_rbp_means_no_rule() {
    // 00: push rax; 01: mov ebp, edi; 03: call rax; 05: pop rax; 06: ret
    check(&[0x50, 0x89, 0xfd, 0xff, 0xd0, 0x58, 0xc3], &[(1, rsp(16, 0)), (3, NONE)]);
}

#[test]
fn ways_that_disagree_have_no_rule_where_they_meet() {
    // 00: test edi, edi; 02: je 05; 04: push rax; 05: call rax; 07: jmp 07
    check(&[0x85, 0xff, 0x74, 0x01, 0x50, 0xff, 0xd0, 0xeb, 0xfe], &[(4, rsp(8, 0)), (5, NONE), (7, NONE)]);
}

/// Something is not as it seems, if a return does not find its address.
#[test]
fn a_function_that_does_not_return_to_its_caller_has_no_rules_at_all() {
    // 00: call rax; 02: push rax; 03: ret
    check(&[0xff, 0xd0, 0x50, 0xc3], &[(0, NONE), (2, NONE), (3, NONE)]);
}

#[test]
fn what_stands_behind_a_call_that_does_not_come_back_is_another_function() {
    // 00: push rax; 01: call 10; 06: push rbx; 07: ret; 10: jmp 10
    let mut code = vec![0x50, 0xe8, 0x0a, 0, 0, 0, 0x53, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0xeb, 0xfe]);
    check(&code, &[(1, rsp(16, 0)), (6, NONE), (7, NONE), (0x10, rsp(8, 0))]);
}

/// Nothing leads to 0x08.
#[test]
fn a_gap_has_no_rule() {
    // 00: call rax; 02: ret; 08: push rbx; 09: call rax; 0b: pop rbx; 0c: ret
    let code = [0xff, 0xd0, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0x53, 0xff, 0xd0, 0x5b, 0xc3];
    check(&code, &[(0, rsp(8, 0)), (3, NONE), (8, NONE), (9, NONE), (0xc, NONE)]);
}

#[test]
fn functions_whose_address_is_taken_are_found() {
    // 00: lea rdi, [rip+9] (10); 07: jmp rax; 10: push rbx; 11: call rax; 13: pop rbx; 14: ret
    let mut code = vec![0x48, 0x8d, 0x3d, 0x09, 0, 0, 0, 0xff, 0xe0];
    code.resize(0x10, 0xcc);
    code.extend([0x53, 0xff, 0xd0, 0x5b, 0xc3]);
    check(&code, &[(0x10, rsp(8, 0)), (0x11, rsp(16, 0)), (0x14, rsp(8, 0))]);
}

/// A table of bytes, or the midst of a function, does not behave as one.
#[test]
fn an_address_that_is_no_function_has_no_rule() {
    // 00: lea rdi, [rip+9] (10); 07: jmp rax; 10: pop rbx; 11: ret
    let mut code = vec![0x48, 0x8d, 0x3d, 0x09, 0, 0, 0, 0xff, 0xe0];
    code.resize(0x10, 0xcc);
    code.extend([0x5b, 0xc3]);
    check(&code, &[(0, rsp(8, 0)), (0x10, NONE), (0x11, NONE)]);
}

/// GCC's `switch`, with the bound that its comparison gives.
#[test]
fn cases_of_a_switch_are_followed_as_far_as_its_bound_is_known() {
    let code = |bound: [u8; 5]| {
        let mut code = bound.to_vec(); // 00: cmp edi, 1; 03: ja 26
        code.extend([0x89, 0xff]); // 05: mov edi, edi
        code.extend([0x48, 0x8d, 0x15, 0x1a, 0, 0, 0]); // 07: lea rdx, [rip+1a] (28)
        code.extend([0x48, 0x63, 0x04, 0xba]); // 0e: movsxd rax, dword [rdx+4*rdi]
        code.extend([0x48, 0x01, 0xd0, 0xff, 0xe0]); // 12: add rax, rdx; 15: jmp rax
        code.extend([0x50, 0xff, 0xd0, 0x58, 0xc3]); // 17: push rax; 18: call rax; 1a: pop rax; 1b: ret
        code.extend([0x50, 0x50, 0x50, 0xff, 0xd0]); // 1c: push rax, 3 times; 1f: call rax
        code.extend([0x48, 0x83, 0xc4, 0x18, 0xc3]); // 21: add rsp, 24; 25: ret
        code.extend([0xc3, 0xcc]); // 26: ret
        code.extend((-0x11_i32).to_le_bytes()); // 28: 17, 1c
        code.extend((-0xc_i32).to_le_bytes());
        code
    };
    check(&code([0x83, 0xff, 0x01, 0x77, 0x21]), &[(0x15, rsp(8, 0)), (0x18, rsp(16, 0)), (0x1f, rsp(32, 0))]);
    check(&code([0x90; 5]), &[(0x15, rsp(8, 0)), (0x18, NONE), (0x1f, NONE), (0x26, NONE)]);
}

/// musl's `__clone`: the child takes its argument off its new stack.
#[test]
fn the_child_of_a_clone_is_an_outermost_frame() {
    // 00: mov eax, 56; 05: syscall; 07: test eax, eax; 09: jne 11; 0b: xor ebp, ebp; 0d: pop rdi; 0e: call rcx; 10: hlt; 11: ret
    let code = [0xb8, 0x38, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0, 0x75, 0x06, 0x31, 0xed, 0x5f, 0xff, 0xd1, 0xf4, 0xc3];
    check(&code, &[(0, rsp(8, 0)), (0xe, ROOT), (0x11, rsp(8, 0))]);
    // 00: mov eax, 57 (fork): the same instructions are no start of a thread.
    let mut fork = code;
    fork[1] = 57;
    check(&fork, &[(0xe, NONE), (0x11, rsp(8, 0))]);
}

/// `-fstack-clash-protection`: a large frame is made page by page.
#[test]
fn a_frame_made_page_by_page_has_its_size() {
    // 00: lea r11, [rsp-0x2000]; 08: sub rsp, 0x1000; 0f: or qword [rsp], 0; 14: cmp rsp, r11; 17: jne 08; 19: call rax
    // 1b: add rsp, 0x2000; 22: ret
    let code = [
        0x4c, 0x8d, 0x9c, 0x24, 0x00, 0xe0, 0xff, 0xff, 0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00, 0x48, 0x83, 0x0c,
        0x24, 0x00, 0x4c, 0x39, 0xdc, 0x75, 0xef, 0xff, 0xd0, 0x48, 0x81, 0xc4, 0x00, 0x20, 0x00, 0x00, 0xc3,
    ];
    check(&code, &[(0xf, NONE), (0x19, rsp(0x2008, 0)), (0x22, rsp(8, 0))]);
}
