//! Clients that send what is wrong: the attack of the published figures.

/// The update of an attacker for what it honestly learned: four times the other way.
pub(crate) fn turned(delta: &mut [f32]) {
    for value in delta {
        *value *= -4.0;
    }
}
