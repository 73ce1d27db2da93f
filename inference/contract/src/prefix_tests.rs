use proptest::prelude::*;

use super::*;

const PAGE: usize = PAGE_TOKENS as usize;

/// Tokens of so many pages, each of one number.
fn pages(numbers: &[u32]) -> Vec<u32> {
    numbers.iter().flat_map(|number| [*number; PAGE]).collect()
}

/// Computes all pages of some tokens, as a sequence would, and holds them.
fn compute(prefixes: &mut Prefixes, scope: &Scope, tokens: &[u32]) -> Vec<PageId> {
    let mut chain = prefixes.find(scope, &[], tokens, usize::MAX);
    prefixes.hold(&chain);
    for page in tokens.chunks_exact(PAGE).skip(chain.len()) {
        chain.push(prefixes.keep(scope, &chain, page).page);
    }
    chain
}

#[test]
fn whole_pages_of_equal_beginnings_are_found_and_no_others() {
    let (mut prefixes, scope) = (Prefixes::default(), Scope::new("acme"));
    let chain = compute(&mut prefixes, &scope, &pages(&[1, 2, 3]));
    let found = |tokens: &[u32]| prefixes.find(&scope, &[], tokens, usize::MAX).len();
    assert_eq!(found(&pages(&[1, 2, 3, 4])), 3);
    assert_eq!(found(&pages(&[1, 2, 3])[..3 * PAGE - 1]), 2, "a page is found as a whole");
    assert_eq!(found(&pages(&[1, 3])), 1);
    assert_eq!(found(&pages(&[2, 3])), 0, "a page is what it is only behind those before it");
    let mut other = pages(&[1, 2, 3]);
    other[2 * PAGE - 1] = 9;
    assert_eq!(found(&other), 1, "one other token is another page");
    let all = pages(&[1, 2, 3]);
    assert_eq!(prefixes.find(&scope, &chain[..1], &all, 2), chain[1..2]);
}

#[test]
fn nothing_is_found_in_another_scope() {
    let mut prefixes = Prefixes::default();
    let (mine, theirs) = (Scope::new("acme"), Scope::new("zeta"));
    let tokens = pages(&[1, 2]);
    let chain = compute(&mut prefixes, &mine, &tokens);
    assert!(prefixes.find(&theirs, &[], &tokens, usize::MAX).is_empty());
    let other = compute(&mut prefixes, &theirs, &tokens);
    assert!(chain.iter().all(|page| !other.contains(page)));
}

#[test]
fn what_is_held_stays_and_the_longest_left_goes_first() {
    let (mut prefixes, scope) = (Prefixes::default(), Scope::new("acme"));
    let first = compute(&mut prefixes, &scope, &pages(&[1, 2]));
    let second = compute(&mut prefixes, &scope, &pages(&[1, 3]));
    assert_eq!((prefixes.used(), prefixes.len()), (3, 3), "the first page is one");
    assert_eq!(prefixes.evict(), None);
    prefixes.release(&second);
    assert_eq!((prefixes.used(), prefixes.evict()), (2, Some(second[1])));
    assert_eq!(prefixes.evict(), None, "the first page is still held");
    prefixes.release(&first);
    let third = compute(&mut prefixes, &scope, &pages(&[4]));
    prefixes.release(&third);
    let order: Vec<_> = std::iter::from_fn(|| prefixes.evict()).collect();
    assert_eq!(order, [first[1], first[0], third[0]]);
    assert!(prefixes.is_empty() && prefixes.followers.is_empty());
}

#[test]
fn a_page_computed_twice_is_kept_once() {
    let (mut prefixes, scope) = (Prefixes::default(), Scope::new("acme"));
    let tokens = pages(&[1]);
    let first = prefixes.keep(&scope, &[], &tokens);
    let second = prefixes.keep(&scope, &[], &tokens);
    assert_eq!((first.is_new, second.is_new, first.page), (true, false, second.page));
    prefixes.release(&[first.page]);
    assert_eq!((prefixes.evict(), prefixes.used()), (None, 1));
}

/// The same by lists that are gone through: each page is the whole beginning that ends with it.
#[derive(Default)]
struct Naive {
    pages: Vec<(PageId, Scope, Vec<u32>, u32, u64)>,
    now: u64,
}

impl Naive {
    fn find(&self, scope: &Scope, tokens: &[u32]) -> Vec<PageId> {
        let beginnings = (1..=tokens.len() / PAGE).map(|count| &tokens[..count * PAGE]);
        let page = |beginning: &[u32]| {
            let same = |page: &&(_, Scope, Vec<u32>, _, _)| page.1 == *scope && page.2 == beginning;
            self.pages.iter().find(same).map(|page| page.0)
        };
        beginnings.map_while(page).collect()
    }

    fn evict(&mut self) -> Option<PageId> {
        let is_leaf = |page: &&(PageId, Scope, Vec<u32>, u32, u64)| {
            let follows = |other: &(PageId, Scope, Vec<u32>, u32, u64)| {
                other.1 == page.1 && other.2.len() > page.2.len() && other.2.starts_with(&page.2)
            };
            page.3 == 0 && !self.pages.iter().any(follows)
        };
        let oldest = self.pages.iter().filter(is_leaf).min_by_key(|page| (page.4, page.0));
        let id = oldest?.0;
        self.pages.retain(|page| page.0 != id);
        Some(id)
    }

    fn page(&mut self, id: PageId) -> &mut (PageId, Scope, Vec<u32>, u32, u64) {
        self.pages.iter_mut().find(|page| page.0 == id).expect("the page is there")
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// A sequence of these pages is computed and held.
    Compute(bool, Vec<u32>),
    /// One of those held ends.
    Release(usize),
    Evict,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    // Few numbers, so that beginnings are often equal.
    let numbers = prop::collection::vec(0u32..3, 0..5);
    let act = prop_oneof![
        3 => (any::<bool>(), numbers).prop_map(|(scope, numbers)| Act::Compute(scope, numbers)),
        2 => any::<usize>().prop_map(Act::Release),
        2 => Just(Act::Evict),
    ];
    prop::collection::vec(act, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Finds, keeps and forgets what the naive one does, and counts alike.
    #[test]
    fn it_does_what_lists_do(acts in acts()) {
        let scopes = [Scope::new("a"), Scope::new("b")];
        let (mut prefixes, mut naive) = (Prefixes::default(), Naive::default());
        let mut running: Vec<Vec<PageId>> = Vec::new();
        for act in acts {
            match act {
                Act::Compute(scope, numbers) => {
                    let (scope, tokens) = (&scopes[usize::from(scope)], pages(&numbers));
                    let found = prefixes.find(scope, &[], &tokens, usize::MAX);
                    prop_assert_eq!(&found, &naive.find(scope, &tokens));
                    let chain = compute(&mut prefixes, scope, &tokens);
                    for (index, id) in chain.iter().enumerate() {
                        if index < found.len() {
                            naive.page(*id).3 += 1;
                        } else {
                            let beginning = tokens[..(index + 1) * PAGE].to_vec();
                            naive.pages.push((*id, scope.clone(), beginning, 1, 0));
                        }
                    }
                    running.push(chain);
                }
                Act::Release(which) if !running.is_empty() => {
                    let chain = running.swap_remove(which % running.len());
                    prefixes.release(&chain);
                    naive.now += 1;
                    for id in chain {
                        let now = naive.now;
                        let page = naive.page(id);
                        (page.3, page.4) = (page.3 - 1, now);
                    }
                }
                Act::Release(_) => {}
                Act::Evict => prop_assert_eq!(prefixes.evict(), naive.evict()),
            }
            let used = naive.pages.iter().filter(|page| page.3 > 0).count() as u64;
            prop_assert_eq!((prefixes.used(), prefixes.len()), (used, naive.pages.len() as u64));
        }
    }
}
