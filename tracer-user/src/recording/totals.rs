//! The totals of all stacks at a snapshot, as what changed since the one before: column by column, each number less what the
//! other columns let expect of it. Most are then 0, and compress to next to nothing.

use super::{
    file::{
        packed::Packed,
        wire::{Budget, Column, Malformed, Reader, Writer, unzigzag, zigzag},
    },
    stacks::deltas,
};
use crate::snapshot::{AgeCell, StackId, Totals};

/// Number of columns beside the ids.
const N_COLUMNS: usize = 10;

/// The columns of one row, in the order of the file.
type Residuals = [u64; N_COLUMNS];

/// What a row's peak is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeakIs {
    /// What it was: no new peak since.
    Unchanged = 0,
    /// What is live now: the peak is about now.
    Current = 1,
}

/// Packs the rows of `now` that differ from `before`; ids are indices, and `before` may be the shorter.
pub(super) fn pack(before: &[Totals], now: &[Totals]) -> Packed {
    let mut w = Writer::default();
    put(before, now, &mut w);
    Packed::new(&w.0)
}

/// Appends the rows of `now` that differ from `before`.
pub(super) fn put(before: &[Totals], now: &[Totals], w: &mut Writer) {
    let old = |at: usize| before.get(at).copied().unwrap_or_default();
    let changed: Vec<usize> = (0..now.len()).filter(|&at| old(at) != now[at]).collect();
    let count = |is: fn(&Totals, &Totals) -> bool| changed.iter().filter(|&&at| is(&old(at), &now[at])).count();
    let n_unchanged = count(|old, new| old.peak_bytes == new.peak_bytes);
    let n_current = count(|_, new| new.current_bytes == new.peak_bytes);
    let peak_is = if n_current > n_unchanged { PeakIs::Current } else { PeakIs::Unchanged };

    w.number(changed.len() as u64);
    w.number(peak_is as u64);
    w.column(deltas(changed.iter().map(|&at| at as u64)));
    let rows: Vec<Residuals> = changed.iter().map(|&at| residuals(&old(at), &now[at], peak_is)).collect();
    for column in 0..N_COLUMNS {
        w.column(rows.iter().map(|row| row[column]));
    }
}

/// Brings `totals` from one snapshot to the next. `raw` is scratch memory. After an error `totals` is of no use.
pub(super) fn apply(
    packed: &Packed,
    totals: &mut Vec<Totals>,
    n_stacks: usize,
    budget: &Budget,
    raw: &mut Vec<u8>,
) -> Result<(), Malformed> {
    packed.unpack(budget, raw)?;
    totals.resize(n_stacks, Totals::default());
    let mut r = Reader::new(raw, budget);
    get(&mut r, totals)?;
    r.end()
}

/// Reads what [`put`] appended into all there are.
pub(super) fn get(r: &mut Reader<'_>, totals: &mut [Totals]) -> Result<(), Malformed> {
    let n_rows = r.number()?;
    let peak_is = match r.number()? {
        0 => PeakIs::Unchanged,
        1 => PeakIs::Current,
        _ => return Err(Malformed::Number),
    };
    let mut ids = r.column()?;
    let mut columns = [Column::Zeros; N_COLUMNS];
    for column in &mut columns {
        *column = r.column()?;
    }
    let mut id = 0_u64;
    for row in 0..n_rows {
        let step = unzigzag(ids.next()?);
        // Ids ascend: no more rows than places.
        if row > 0 && (step == 0 || step > totals.len() as u64) {
            return Err(Malformed::Id);
        }
        id = id.wrapping_add(step);
        let known = usize::try_from(id).ok().and_then(|id| totals.get_mut(id)).ok_or(Malformed::Id)?;
        let mut residuals = [0; N_COLUMNS];
        for (residual, column) in residuals.iter_mut().zip(&mut columns) {
            *residual = column.next()?;
        }
        *known = restored(known, &residuals, peak_is);
    }
    ids.end()?;
    columns.iter().try_for_each(Column::end)
}

/// Blocks of one stack mostly have one size: bytes are expected to change by the change in count times it.
fn unit(totals: &Totals) -> u64 {
    totals.allocated_bytes.checked_div(totals.allocated_count).unwrap_or(0)
}

fn residuals(old: &Totals, new: &Totals, peak_is: PeakIs) -> Residuals {
    let change = |of: fn(&Totals) -> u64| of(new).wrapping_sub(of(old));
    let allocated = change(|t| t.allocated_count);
    let current = change(|t| t.current_count);
    let (peak_base, peak_count_base) = peak_base(old, new, peak_is);
    let peak_count = new.peak_count.wrapping_sub(peak_count_base);
    let (old_unit, new_unit) = (unit(old), unit(new));
    let within_1ms = change(|t| t.freed_within_1ms_count);
    let allocated_bytes = change(|t| t.allocated_bytes);
    let current_bytes = change(|t| t.current_bytes);
    [
        allocated,
        current,
        peak_count,
        change(|t| t.freed_count).wrapping_sub(allocated.wrapping_sub(current)),
        within_1ms,
        change(|t| t.freed_within_1s_count).wrapping_sub(within_1ms),
        allocated_bytes.wrapping_sub(allocated.wrapping_mul(old_unit)),
        current_bytes.wrapping_sub(current.wrapping_mul(new_unit)),
        new.peak_bytes.wrapping_sub(peak_base).wrapping_sub(peak_count.wrapping_mul(new_unit)),
        change(|t| t.freed_bytes).wrapping_sub(allocated_bytes.wrapping_sub(current_bytes)),
    ]
    .map(zigzag)
}

#[inline]
fn restored(old: &Totals, residuals: &Residuals, peak_is: PeakIs) -> Totals {
    let [allocated, current, peak_count, freed, within_1ms, within_1s, allocated_b, current_b, peak_b, freed_b] =
        residuals.map(unzigzag);
    let mut new = Totals {
        allocated_count: old.allocated_count.wrapping_add(allocated),
        current_count: old.current_count.wrapping_add(current),
        freed_count: old.freed_count.wrapping_add(freed).wrapping_add(allocated.wrapping_sub(current)),
        freed_within_1ms_count: old.freed_within_1ms_count.wrapping_add(within_1ms),
        freed_within_1s_count: old.freed_within_1s_count.wrapping_add(within_1s).wrapping_add(within_1ms),
        ..*old
    };
    let allocated_bytes = allocated_b.wrapping_add(allocated.wrapping_mul(unit(old)));
    new.allocated_bytes = old.allocated_bytes.wrapping_add(allocated_bytes);
    let new_unit = unit(&new);
    let current_bytes = current_b.wrapping_add(current.wrapping_mul(new_unit));
    new.current_bytes = old.current_bytes.wrapping_add(current_bytes);
    new.freed_bytes = old.freed_bytes.wrapping_add(freed_b).wrapping_add(allocated_bytes.wrapping_sub(current_bytes));
    let (peak_base, peak_count_base) = peak_base(old, &new, peak_is);
    new.peak_count = peak_count_base.wrapping_add(peak_count);
    new.peak_bytes = peak_base.wrapping_add(peak_b).wrapping_add(peak_count.wrapping_mul(new_unit));
    new
}

/// Bytes and count that a peak is told as the difference from.
const fn peak_base(old: &Totals, new: &Totals, peak_is: PeakIs) -> (u64, u64) {
    match peak_is {
        PeakIs::Unchanged => (old.peak_bytes, old.peak_count),
        PeakIs::Current => (new.current_bytes, new.current_count),
    }
}

/// Packs live blocks by age, in the order of stack and generation.
pub(super) fn pack_ages(cells: &[AgeCell]) -> Packed {
    let mut w = Writer::default();
    w.number(cells.len() as u64);
    w.column(deltas(cells.iter().map(|cell| u64::from(cell.stack.0))));
    w.column(cells.iter().map(|cell| u64::from(cell.generation)));
    w.column(cells.iter().map(|cell| cell.count));
    w.column(cells.iter().map(|cell| cell.bytes));
    Packed::new(&w.0)
}

/// Unpacks live blocks by age.
pub(super) fn unpack_ages(
    packed: &Packed,
    n_stacks: usize,
    budget: &Budget,
    raw: &mut Vec<u8>,
) -> Result<Vec<AgeCell>, Malformed> {
    packed.unpack(budget, raw)?;
    let mut r = Reader::new(raw, budget);
    let n_cells = r.count(size_of::<AgeCell>())?;
    let (mut stacks, mut generations) = (r.column()?, r.column()?);
    let (mut counts, mut bytes) = (r.column()?, r.column()?);
    r.end()?;
    let mut stack = 0_u64;
    let mut cells = Vec::with_capacity(n_cells);
    for _ in 0..n_cells {
        stack = stack.wrapping_add(unzigzag(stacks.next()?));
        if stack >= n_stacks as u64 {
            return Err(Malformed::Id);
        }
        cells.push(AgeCell {
            stack: StackId(stack as u32),
            generation: generations.next32()?,
            count: counts.next()?,
            bytes: bytes.next()?,
        });
    }
    [stacks, generations, counts, bytes].iter().try_for_each(Column::end)?;
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any figures at all: what a session cannot produce must come back too.
    fn any_totals() -> impl Strategy<Value = Totals> {
        let number = prop_oneof![0..100_u64, any::<u64>()];
        proptest::array::uniform10(number).prop_map(|n| Totals {
            current_bytes: n[0],
            current_count: n[1],
            peak_bytes: n[2],
            peak_count: n[3],
            allocated_bytes: n[4],
            allocated_count: n[5],
            freed_bytes: n[6],
            freed_count: n[7],
            freed_within_1ms_count: n[8],
            freed_within_1s_count: n[9],
        })
    }

    proptest! {
        #[test]
        fn any_change_comes_back(
            before in proptest::collection::vec(any_totals(), 0..20),
            mut now in proptest::collection::vec(any_totals(), 20..30),
            kept in proptest::collection::vec(any::<bool>(), 20),
            peak_is_current: bool,
        ) {
            for (at, totals) in before.iter().enumerate().filter(|(at, _)| kept[*at]) {
                now[at] = *totals;
            }
            if peak_is_current {
                for totals in &mut now {
                    (totals.peak_bytes, totals.peak_count) = (totals.current_bytes, totals.current_count);
                }
            }
            let packed = pack(&before, &now);
            let mut totals = before;
            apply(&packed, &mut totals, now.len(), &Budget::unlimited(), &mut Vec::new()).expect("just packed");
            prop_assert_eq!(totals, now);
        }
    }

    #[test]
    fn blocks_of_one_size_cost_nothing_beside_their_counts() {
        let of = |live: u64, allocated: u64| Totals {
            current_bytes: live * 123,
            current_count: live,
            peak_bytes: live * 123,
            peak_count: live,
            allocated_bytes: allocated * 123,
            allocated_count: allocated,
            freed_bytes: (allocated - live) * 123,
            freed_count: allocated - live,
            ..Totals::default()
        };
        let found = residuals(&of(3, 10), &of(5, 14), PeakIs::Current).map(unzigzag);
        assert_eq!(found, [4, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_id_beyond_the_stacks_is_refused() {
        let packed = pack(&[], &[Totals { allocated_count: 1, ..Totals::default() }; 3]);
        let mut totals = Vec::new();
        let outcome = apply(&packed, &mut totals, 2, &Budget::unlimited(), &mut Vec::new());
        assert_eq!(outcome, Err(Malformed::Id));
    }
}
