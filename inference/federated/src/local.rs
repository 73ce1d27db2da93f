//! What a strategy adds to a client's own training, in the client's floats.
//!
//! Nothing here is compared between nodes. FedProx pulls towards the base; SCAFFOLD corrects each
//! step by what all know of the drift between clients.

/// Adds FedProx's term to a gradient: `mu (w - base)` (Li et al. 2020, equation 2). Values beyond
/// the shortest of the three are left as they are.
pub fn add_proximal(gradient: &mut [f32], weights: &[f32], base: &[f32], mu: f32) {
    for ((gradient, weight), base) in gradient.iter_mut().zip(weights).zip(base) {
        *gradient += mu * (weight - base);
    }
}

/// Corrects a gradient by SCAFFOLD's control variates: `- c_i + c` (Karimireddy et al. 2020,
/// algorithm 1, line 10).
pub fn correct(gradient: &mut [f32], own: &[f32], common: &[f32]) {
    for ((gradient, own), common) in gradient.iter_mut().zip(own).zip(common) {
        *gradient += common - own;
    }
}

/// A client's next control variate after `steps` steps of rate `rate` from `base` to `weights`:
/// `c_i - c + (base - w) / (steps rate)` (option II of line 12). None for no steps or no rate.
pub fn next_control(
    own: &[f32],
    common: &[f32],
    base: &[f32],
    weights: &[f32],
    steps: u32,
    rate: f32,
) -> Option<Vec<f32>> {
    let way = steps as f32 * rate;
    let lengths = [common.len(), base.len(), weights.len()];
    if !way.is_normal() || lengths != [own.len(); 3] {
        return None;
    }
    let next = |at: usize| own[at] - common[at] + (base[at] - weights[at]) / way;
    Some((0..own.len()).map(next).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_are_those_of_the_papers() {
        let mut gradient = [1.0, -1.0];
        add_proximal(&mut gradient, &[2.0, 0.0], &[1.0, 0.5], 0.5);
        assert_eq!(gradient, [1.5, -1.25]);
        let mut gradient = [1.0];
        correct(&mut gradient, &[0.25], &[0.75]);
        assert_eq!(gradient, [1.5]);
        // Two steps of rate 0.5 along a gradient of 3: the control variate is that gradient.
        assert_eq!(next_control(&[0.0], &[0.0], &[4.0], &[1.0], 2, 0.5), Some(vec![3.0]));
        assert_eq!(next_control(&[0.0], &[0.0], &[4.0], &[1.0], 0, 0.5), None);
        assert_eq!(next_control(&[0.0], &[], &[4.0], &[1.0], 1, 0.5), None);
    }
}
