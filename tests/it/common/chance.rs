use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Chance that a seed repeats.
pub struct Chance(StdRng);

impl Chance {
    pub fn seeded(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// The seeds of a test: `EVERFOLD_TEST_SEED` alone if it is set, else so many.
    pub fn seeds(usual: u64) -> Vec<u64> {
        match std::env::var("EVERFOLD_TEST_SEED") {
            Ok(seed) => vec![seed.parse().expect("EVERFOLD_TEST_SEED is a number")],
            Err(_) => (1..=usual).collect(),
        }
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}
