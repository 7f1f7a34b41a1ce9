//! temporary
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, NativeEndian, RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use object::{Object, ObjectSection};
use std::collections::HashMap;
use tracer_common::unwind::{PackedRule, RuleKind, UnwindRow, UnwindRule};
#[derive(Default)]
pub struct Problems;
impl Problems {
    pub fn describe(&self) -> Vec<String> {
        vec![]
    }
}
#[derive(Default)]
pub struct ModuleRows {
    pub rows: Vec<(u32, UnwindRule)>,
    pub base_vaddr: u64,
    pub problems: Problems,
}
#[derive(Clone, Copy, Default)]
pub struct RowRange {
    pub start: u32,
    pub len: u32,
    pub base_vaddr: u64,
}
pub struct RowTables {
    cap: usize,
    rows: Vec<UnwindRow>,
    rules: Vec<PackedRule>,
    idx: HashMap<PackedRule, u32>,
    known: HashMap<Vec<u8>, RowRange>,
}
impl RowTables {
    pub fn new(cap: usize) -> Self {
        Self { cap, rows: vec![], rules: vec![], idx: HashMap::new(), known: HashMap::new() }
    }
    pub fn rows(&self) -> &[UnwindRow] {
        &self.rows
    }
    pub fn rules(&self) -> &[PackedRule] {
        &self.rules
    }
    pub fn add(&mut self, key: &[u8], m: ModuleRows) -> Result<RowRange, String> {
        if let Some(r) = self.known.get(key) {
            return Ok(*r);
        }
        if self.rows.len() + m.rows.len() > self.cap {
            return Err("full".into());
        }
        let start = self.rows.len() as u32;
        for (o, r) in &m.rows {
            let k = r.pack();
            let n = self.rules.len() as u32;
            let i = *self.idx.entry(k).or_insert_with(|| {
                self.rules.push(k);
                n
            });
            self.rows.push(UnwindRow { offset: *o, rule: i });
        }
        let r = RowRange { start, len: m.rows.len() as u32, base_vaddr: m.base_vaddr };
        self.known.insert(key.to_vec(), r);
        Ok(r)
    }
}
pub fn rows(data: &[u8]) -> ModuleRows {
    ModuleRows { rows: rows_(data).unwrap_or_default(), ..Default::default() }
}
fn rows_(data: &[u8]) -> Option<Vec<(u32, UnwindRule)>> {
    let obj = object::File::parse(data).ok()?;
    let eh = obj.section_by_name(".eh_frame")?;
    let ehd = eh.uncompressed_data().ok()?;
    let ehf = EhFrame::new(&ehd, NativeEndian);
    let mut bases = BaseAddresses::default().set_eh_frame(eh.address());
    if let Some(t) = obj.section_by_name(".text") {
        bases = bases.set_text(t.address());
    }
    let mut out: Vec<(u32, UnwindRule)> = vec![];
    let mut ctx = UnwindContext::new();
    let mut it = ehf.entries(&bases);
    while let Some(e) = it.next().ok()? {
        if let CieOrFde::Fde(p) = e {
            let fde = p.parse(|_, b, o| ehf.cie_from_offset(b, o)).ok()?;
            let Ok(mut t) = fde.rows(&ehf, &bases, &mut ctx) else { continue };
            while let Ok(Some(r)) = t.next_row() {
                let (mut kind, off) = match r.cfa() {
                    CfaRule::RegisterAndOffset { register, offset } if *register == X86_64::RSP => {
                        (RuleKind::Rsp, *offset as i32)
                    }
                    CfaRule::RegisterAndOffset { register, offset } if *register == X86_64::RBP => {
                        (RuleKind::Rbp, *offset as i32)
                    }
                    _ => (RuleKind::Unsupported, 0),
                };
                let rb = match r.register(X86_64::RBP) {
                    Some(RegisterRule::Offset(o)) => o as i16,
                    _ => 0,
                };
                if matches!(r.register(X86_64::RA), Some(RegisterRule::Undefined)) {
                    kind = RuleKind::Root
                }
                out.push((r.start_address() as u32, UnwindRule { kind, cfa_off: off, rbp_off: rb }));
            }
            out.push(((fde.initial_address() + fde.len()) as u32, UnwindRule::of(RuleKind::None)));
        }
    }
    out.sort_by_key(|r| (r.0, r.1.kind != RuleKind::None));
    out.dedup_by(|b, a| {
        if a.0 == b.0 {
            *a = *b;
            true
        } else {
            false
        }
    });
    Some(out)
}
