//! Names that a mistyped one may have meant.

/// How alike two names must be (Jaro-Winkler, 0–1).
const MIN_LIKENESS: f64 = 0.8;

/// Names that are suggested at most.
const MAX_NEAR: usize = 3;

/// The names most like `wanted`, the most alike first.
pub fn names<T: AsRef<str>>(wanted: &str, among: &[T]) -> Vec<String> {
    let mut near: Vec<(f64, &str)> = among
        .iter()
        .map(|name| (strsim::jaro_winkler(wanted, name.as_ref()), name.as_ref()))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .collect();
    near.sort_by(|(a, name), (b, other)| b.total_cmp(a).then_with(|| name.cmp(other)));
    near.dedup_by(|(_, a), (_, b)| a == b);
    near.into_iter().take(MAX_NEAR).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_name_finds_its_like_first() {
        let among = ["pool_free", "pool_alloc", "main", "pool_alloc", "pool_allocate"].map(str::to_owned);
        assert_eq!(names("pool_aloc", &among), ["pool_alloc", "pool_allocate", "pool_free"]);
        assert_eq!(names("zzz", &among), Vec::<String>::new());
    }
}
