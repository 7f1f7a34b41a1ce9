//! Names that a mistyped one may have meant.

/// How alike two names must be (Jaro-Winkler, 0–1).
const MIN_LIKENESS: f64 = 0.8;

/// Names that are suggested at most.
const MAX_NEAR: usize = 3;

/// Longest name whose letters are counted one by one.
const MAX_COUNTED_BYTES: usize = 64;

/// The names most like `wanted`, the most alike first.
pub fn names<T: AsRef<str>>(wanted: &str, among: &[T]) -> Vec<String> {
    let mut near: Vec<(f64, &str)> = among
        .iter()
        .map(|name| (likeness(wanted, name.as_ref()), name.as_ref()))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .collect();
    near.sort_by(|(a, name), (b, other)| b.total_cmp(a).then_with(|| name.cmp(other)));
    near.dedup_by(|(_, a), (_, b)| a == b);
    near.into_iter().take(MAX_NEAR).map(|(_, name)| name.to_owned()).collect()
}

/// 0–1. In short names one slip is much by that measure, and yet no more than a slip.
fn likeness(wanted: &str, name: &str) -> f64 {
    let likeness = strsim::jaro_winkler(wanted, name);
    let is_short = (2..=MAX_COUNTED_BYTES).contains(&wanted.len()) && name.len() <= MAX_COUNTED_BYTES;
    if is_short && strsim::osa_distance(wanted, name) == 1 { likeness.max(MIN_LIKENESS) } else { likeness }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_name_finds_its_like_first() {
        let among = ["pool_free", "pool_alloc", "main", "pool_alloc", "pool_allocate"].map(str::to_owned);
        assert_eq!(names("pool_aloc", &among), ["pool_alloc", "pool_allocate", "pool_free"]);
        assert_eq!(names("zzz", &among), Vec::<String>::new());
        assert_eq!(names("wbe", &["web", "db", "a-web"]), ["web"]);
        assert_eq!(names("x", &["y"]), Vec::<String>::new());
    }
}
