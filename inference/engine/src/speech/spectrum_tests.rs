use super::super::testing::tone;
use super::*;

/// The same by the definition of the transform.
fn plain(sound: &[i16], row: usize, spectrum: &Spectrum) -> Vec<f32> {
    let energy: Vec<f64> = (0..LINES)
        .map(|line| {
            let (mut real, mut imaginary) = (0.0, 0.0);
            for at in 0..SPAN {
                let begin = (row * HOP + at) as isize - 200;
                let number = spectrum.window[at] * sample(sound, begin);
                let angle = TAU * (line * at) as f64 / SPAN as f64;
                real += number * angle.cos();
                imaginary -= number * angle.sin();
            }
            real * real + imaginary * imaginary
        })
        .collect();
    let value = |(first, weights): &(usize, Vec<f64>)| {
        let sum: f64 = weights.iter().zip(&energy[*first..]).map(|(w, e)| w * e).sum();
        sum.max(LEAST).log10() as f32
    };
    spectrum.bands.iter().map(value).collect()
}

#[test]
fn rows_are_those_of_the_definition() {
    let (spectrum, sound) = (Spectrum::new(80), tone(0.1));
    let mut seen = 0;
    // An odd number, so that the last one is alone.
    spectrum.raw(&sound, 1, 7, |row, values| {
        seen += 1;
        for (found, exact) in values.iter().zip(plain(&sound, row + 1, &spectrum)) {
            assert!((found - exact).abs() < 1e-5, "row {row}: {found} {exact}");
        }
    });
    assert_eq!(seen, 7);
}

#[test]
fn a_window_ends_in_silence_and_its_depth_is_bounded() {
    let (spectrum, sound) = (Spectrum::new(8), tone(0.1));
    let rows = Spectrum::rows(sound.len());
    assert_eq!(rows, 10);
    let loudest = spectrum.loudest(&sound, 0, rows + 2);
    let mut window = vec![7.0; 20 * 8];
    spectrum.window(&sound, (4, 6), loudest, &mut window);
    let (heard, silent) = window.split_at(6 * 8);
    assert!(silent.iter().all(|value| *value == 0.0));
    let (least, most) = ((loudest - 8.0 + 4.0) / 4.0, (loudest + 4.0) / 4.0);
    assert!(heard.iter().all(|value| (least..=most).contains(value)));
    assert!(spectrum.loudest(&[0; 400], 0, 2) <= -9.99);
}

#[test]
fn every_band_of_published_models_hears_something() {
    for bands in [80, 128] {
        let spectrum = Spectrum::new(bands);
        assert!(spectrum.bands.iter().all(|(_, weights)| !weights.is_empty()), "{bands}");
        let last = spectrum.bands.last().expect("bands");
        assert!(last.0 + last.1.len() <= LINES);
    }
}
