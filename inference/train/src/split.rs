//! Divides one set of examples among clients, as the literature does to try unequal data.
//!
//! Owns the three usual ways. Real clients have their own data and need none of this: it serves
//! examples, benches and tests.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

use crate::random::{Purpose, stream};
use crate::{Examples, TrainError};

/// How unequal the clients' examples are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// Every client gets the same mix.
    Equal,
    /// Each class is divided by shares drawn from a symmetric Dirichlet distribution with this
    /// concentration; small values leave most of a class to one client (Hsu et al. 2019,
    /// arXiv 1909.06335).
    Dirichlet(f64),
    /// Examples sorted by label are cut into so many shards a client and dealt out (McMahan et
    /// al. 2017, arXiv 1602.05629).
    Shards(usize),
}

/// Tries for a Dirichlet division in which no client is left without examples. One suffices
/// nearly always with ten clients and thousands of examples; a hundred is soon done.
const TRIES: usize = 100;

/// The examples of each client; every example goes to exactly one of them, and each has some.
pub fn split(
    all: &Examples,
    clients: usize,
    how: Split,
    seed: u64,
) -> Result<Vec<Examples>, TrainError> {
    if clients == 0 || clients > all.len() {
        return Err(TrainError::Plan(format!(
            "{} examples cannot be divided among {clients} clients",
            all.len()
        )));
    }
    let mut rng = stream(seed, Purpose::Division);
    let places = match how {
        Split::Equal => equal(all.len(), clients, &mut rng),
        Split::Dirichlet(concentration) => dirichlet(all, clients, concentration, &mut rng)?,
        Split::Shards(each) => shards(all, clients, each, &mut rng)?,
    };
    Ok(places.iter().map(|places| all.pick(places)).collect())
}

fn equal(count: usize, clients: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(rng);
    (0..clients)
        .map(|client| order[client * count / clients..(client + 1) * count / clients].to_vec())
        .collect()
}

fn dirichlet(
    all: &Examples,
    clients: usize,
    concentration: f64,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Vec<usize>>, TrainError> {
    let gamma = Gamma::new(concentration, 1.0)
        .map_err(|_| TrainError::Plan(format!("a concentration of {concentration}")))?;
    let classes = by_class(all);
    for _ in 0..TRIES {
        let mut places = vec![Vec::new(); clients];
        for class in &classes {
            let mut order = class.clone();
            order.shuffle(rng);
            let draws: Vec<f64> = (0..clients).map(|_| gamma.sample(rng)).collect();
            let total: f64 = draws.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            let mut upto = 0.0;
            let mut begin = 0;
            for (client, draw) in draws.iter().enumerate() {
                upto += draw / total;
                let end = if client + 1 == clients {
                    order.len()
                } else {
                    share(upto, order.len()).clamp(begin, order.len())
                };
                places[client].extend_from_slice(&order[begin..end]);
                begin = end;
            }
        }
        if places.iter().all(|places| !places.is_empty()) {
            return Ok(places);
        }
    }
    Err(TrainError::Plan(format!(
        "no division by a Dirichlet distribution of {concentration} gives each of {clients} \
         clients an example; use fewer clients or a larger concentration"
    )))
}

/// The first so many of `count` that a share between 0 and 1 stands for.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts far below 2^53, and `as` saturates"
)]
fn share(upto: f64, count: usize) -> usize {
    (upto * count as f64) as usize
}

fn shards(
    all: &Examples,
    clients: usize,
    each: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Vec<usize>>, TrainError> {
    let count = clients.saturating_mul(each);
    if each == 0 || count > all.len() {
        return Err(TrainError::Plan(format!(
            "{} examples cannot be cut into {each} shards for each of {clients} clients",
            all.len()
        )));
    }
    let mut sorted = Vec::with_capacity(all.len());
    for mut class in by_class(all) {
        class.shuffle(rng);
        sorted.extend(class);
    }
    let mut deal: Vec<usize> = (0..count).collect();
    deal.shuffle(rng);
    let cut = |shard: usize| &sorted[shard * all.len() / count..(shard + 1) * all.len() / count];
    Ok(deal.chunks(each).map(|own| own.iter().flat_map(|&s| cut(s)).copied().collect()).collect())
}

/// The places of each class's examples.
fn by_class(all: &Examples) -> Vec<Vec<usize>> {
    let mut classes = vec![Vec::new(); all.schema().classes];
    for (at, &label) in all.labels().iter().enumerate() {
        // Examples hold no label beyond their classes.
        if let Some(class) = classes.get_mut(label as usize) {
            class.push(at);
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Schema, Shape};

    fn examples(count: u32, classes: u32) -> Examples {
        let schema = Schema { shape: Shape::Flat(1), classes: classes as usize };
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53, and `as` saturates")]
        let values = (0..count).map(|at| at as f32).collect();
        let labels = (0..count).map(|at| at * 7 % classes).collect();
        Examples::new(schema, values, labels).expect("examples that fit")
    }

    proptest! {
        #[test]
        fn every_example_goes_to_exactly_one_client(
            count in 200u32..600, clients in 1usize..12, way in 0usize..3, seed: u64,
        ) {
            let how = [Split::Equal, Split::Dirichlet(0.5), Split::Shards(2)][way];
            let all = examples(count, 10);
            let parts = split(&all, clients, how, seed).expect("a division");
            prop_assert_eq!(parts.len(), clients);
            let mut seen: Vec<f32> = Vec::new();
            for part in &parts {
                prop_assert!(!part.is_empty());
                seen.extend_from_slice(part.values());
            }
            seen.sort_by(f32::total_cmp);
            prop_assert_eq!(&seen[..], all.values());
            let again = split(&all, clients, how, seed).expect("a division");
            prop_assert_eq!(parts[0].values(), again[0].values());
        }
    }

    #[test]
    fn shards_give_few_classes_to_each_client() {
        let parts = split(&examples(1_000, 10), 10, Split::Shards(2), 1).expect("a division");
        for part in parts {
            let mut labels = part.labels().to_vec();
            labels.sort_unstable();
            labels.dedup();
            assert!(labels.len() <= 4, "{labels:?}");
        }
    }

    #[test]
    fn impossible_divisions_are_refused() {
        let few = examples(4, 2);
        assert!(split(&few, 5, Split::Equal, 0).is_err());
        assert!(split(&few, 0, Split::Equal, 0).is_err());
        assert!(split(&few, 2, Split::Shards(3), 0).is_err());
        assert!(split(&few, 2, Split::Dirichlet(0.0), 0).is_err());
        assert!(split(&few, 2, Split::Dirichlet(f64::NAN), 0).is_err());
    }
}
