//! What lies in the kernel's tables of rows and rules: append only, shared by all processes that map the same file.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use tracer_common::{
    limits::MAX_RULES,
    unwind::{PackedRule, RuleKind, UnwindRow, UnwindRule},
};

use super::rows::ModuleRows;

/// A module's part of the table of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowRange {
    /// Index of the first row.
    pub start: u32,
    /// Number of rows.
    pub len: u32,
}

/// What [`RowTables::add`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The rows are new: they, and new rules, must be uploaded.
    New(RowRange),
    /// A module with this key is there already.
    Known(RowRange),
    /// The table has no room for them: counted in [`RowTables::refused_modules`].
    Full,
}

impl Added {
    /// The module's rows; an empty range when they were refused.
    pub fn range(self) -> RowRange {
        match self {
            Self::New(range) | Self::Known(range) => range,
            Self::Full => RowRange::default(),
        }
    }
}

/// The flat table of rows. `K` tells files apart: the build id, else device, inode, size and time of change.
#[derive(Debug)]
pub struct RowTables<K> {
    rows: Vec<UnwindRow>,
    capacity: usize,
    interner: RuleInterner,
    modules: HashMap<K, RowRange>,
    uploaded_rows: usize,
    uploaded_rules: usize,
    refused_modules: u64,
    refused_rows: u64,
}

impl<K: Eq + Hash> RowTables<K> {
    /// An empty table that takes `capacity` rows.
    pub fn new(capacity: u32) -> Self {
        Self {
            rows: Vec::new(),
            capacity: capacity as usize,
            interner: RuleInterner::default(),
            modules: HashMap::new(),
            uploaded_rows: 0,
            uploaded_rules: 0,
            refused_modules: 0,
            refused_rows: 0,
        }
    }

    /// Where the rows of `key` lie, if they are in the table: to be asked before a module's rows are compiled.
    pub fn find(&self, key: &K) -> Option<RowRange> {
        self.modules.get(key).copied()
    }

    /// Appends a module's rows, once per key.
    pub fn add(&mut self, key: K, module: &ModuleRows) -> Added {
        let slot = match self.modules.entry(key) {
            Entry::Occupied(known) => return Added::Known(*known.get()),
            Entry::Vacant(slot) => slot,
        };
        if module.rows.len() > self.capacity - self.rows.len() {
            self.refused_modules += 1;
            self.refused_rows += module.rows.len() as u64;
            return Added::Full;
        }
        let range = RowRange { start: self.rows.len() as u32, len: module.rows.len() as u32 };
        let interner = &mut self.interner;
        self.rows.extend(module.rows.iter().map(|&(offset, rule)| UnwindRow { offset, rule: interner.intern(rule) }));
        Added::New(*slot.insert(range))
    }

    /// Rules and rows that are not in the kernel yet, each with the index of its first. Upload the rules before the
    /// rows that point to them, and both before a mapping that points to the rows; then call [`Self::mark_uploaded`].
    pub fn pending(&self) -> Pending<'_> {
        Pending {
            first_rule: self.uploaded_rules as u32,
            rules: &self.interner.rules[self.uploaded_rules..],
            first_row: self.uploaded_rows as u32,
            rows: &self.rows[self.uploaded_rows..],
        }
    }

    /// Everything is in the kernel now.
    pub fn mark_uploaded(&mut self) {
        self.uploaded_rules = self.interner.rules.len();
        self.uploaded_rows = self.rows.len();
    }

    /// Number of rows in the table.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Its rules.
    pub fn rules(&self) -> &RuleInterner {
        &self.interner
    }

    /// Modules whose rows had no room, and those rows.
    pub fn refused_modules(&self) -> (u64, u64) {
        (self.refused_modules, self.refused_rows)
    }
}

/// What [`RowTables::pending`] hands to the uploader.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// Index of the first of `rules`.
    pub first_rule: u32,
    /// Rules to upload.
    pub rules: &'a [PackedRule],
    /// Index of the first of `rows`.
    pub first_row: u32,
    /// Rows to upload.
    pub rows: &'a [UnwindRow],
}

/// Rule → dense index. Index 0 is the unsupported rule.
#[derive(Debug)]
pub struct RuleInterner {
    rules: Vec<PackedRule>,
    indices: HashMap<PackedRule, u32>,
    capacity: usize,
    refused: u64,
}

impl Default for RuleInterner {
    fn default() -> Self {
        Self::with_capacity(MAX_RULES)
    }
}

impl RuleInterner {
    /// Index of the rule that stands for those beyond the capacity.
    pub const UNSUPPORTED: u32 = 0;

    /// An interner for `capacity` rules, at least one.
    pub fn with_capacity(capacity: u32) -> Self {
        let unsupported = UnwindRule::of(RuleKind::Unsupported).pack();
        Self {
            rules: vec![unsupported],
            indices: HashMap::from([(unsupported, Self::UNSUPPORTED)]),
            capacity: capacity as usize,
            refused: 0,
        }
    }

    /// The index of `rule`; of the unsupported rule where the table is full.
    pub fn intern(&mut self, rule: UnwindRule) -> u32 {
        let packed = rule.pack();
        let next = self.rules.len();
        match self.indices.entry(packed) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if next >= self.capacity => {
                self.refused += 1;
                Self::UNSUPPORTED
            }
            Entry::Vacant(slot) => {
                self.rules.push(packed);
                *slot.insert(next as u32)
            }
        }
    }

    /// All rules, by index.
    pub fn rules(&self) -> &[PackedRule] {
        &self.rules
    }

    /// Rows whose rule had no room and became unsupported.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(cfa_off: i32) -> UnwindRule {
        UnwindRule { kind: RuleKind::Rsp, cfa_off, rbp_off: 0 }
    }

    fn module(cfa_offs: &[i32]) -> ModuleRows {
        let rows = cfa_offs.iter().zip(0..).map(|(&cfa_off, offset)| (offset, rule(cfa_off))).collect();
        ModuleRows { base_vaddr: 0, rows, ..ModuleRows::default() }
    }

    #[test]
    fn a_module_is_uploaded_once_however_often_it_is_mapped() {
        let mut tables = RowTables::new(10);

        assert_eq!(tables.add("libc", &module(&[8, 16])), Added::New(RowRange { start: 0, len: 2 }));
        assert_eq!((tables.pending().rules.len(), tables.pending().rows.len()), (3, 2));
        tables.mark_uploaded();

        assert_eq!(tables.add("libc", &module(&[8, 16])), Added::Known(RowRange { start: 0, len: 2 }));
        assert!(tables.pending().rows.is_empty());

        assert_eq!(tables.add("libm", &module(&[16, 24, 8])), Added::New(RowRange { start: 2, len: 3 }));
        let pending = tables.pending();
        assert_eq!((pending.first_row, pending.rows.len()), (2, 3));
        assert_eq!((pending.first_rule, pending.rules), (3, &[rule(24).pack()][..]));
    }

    #[test]
    fn a_module_without_room_is_refused_whole_and_counted() {
        let mut tables = RowTables::new(3);

        assert_eq!(tables.add(1, &module(&[8, 16, 24, 32])), Added::Full);
        assert_eq!(tables.add(2, &module(&[8, 16, 24])), Added::New(RowRange { start: 0, len: 3 }));

        assert_eq!(tables.refused_modules(), (1, 4));
        assert_eq!(tables.find(&1), None);
    }

    #[test]
    fn rules_beyond_the_capacity_become_unsupported() {
        let mut interner = RuleInterner::with_capacity(2);

        assert_eq!((interner.intern(rule(8)), interner.intern(rule(16)), interner.intern(rule(8))), (1, 0, 1));

        assert_eq!((interner.rules().len(), interner.refused()), (2, 1));
        assert_eq!(interner.rules()[0].unpack().kind, RuleKind::Unsupported);
    }
}
