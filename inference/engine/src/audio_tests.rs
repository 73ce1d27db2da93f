use super::*;

/// A WAV file of one chunk of format and one of data.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = channels.wrapping_mul(bits) / 8;
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    file.extend(tag.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend(rate.wrapping_mul(u32::from(frame)).to_le_bytes());
    file.extend(frame.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn sixteen(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// A tone of so many hertz.
fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<i16> {
    let sample = |at: u32| {
        let angle = std::f64::consts::TAU * hertz * f64::from(at) / f64::from(rate);
        (angle.sin() * 12_000.0).round() as i16
    };
    (0..(f64::from(rate) * seconds) as u32).map(sample).collect()
}

#[test]
fn samples_of_the_right_rate_are_as_they_were() {
    let given: Vec<i16> = [0, 1, -1, 32_767, -32_768, 12_345].repeat(20_000);
    assert_eq!(samples(&wav(1, 1, 16_000, 16, &sixteen(&given))), Ok(given));
}

#[test]
fn every_form_of_number_is_read() {
    let expected = Ok(vec![0, 8_192, -16_384]);
    let parts = [0.0_f64, 0.25, -0.5];
    let bytes = |number: &dyn Fn(f64) -> Vec<u8>| -> Vec<u8> {
        parts.iter().flat_map(|part| number(*part)).collect()
    };
    let eight = bytes(&|part| vec![(part * 128.0 + 128.0) as u8]);
    assert_eq!(samples(&wav(1, 1, 16_000, 8, &eight)), expected);
    let twentyfour = bytes(&|part| ((part * 8_388_608.0) as i32).to_le_bytes()[..3].to_vec());
    assert_eq!(samples(&wav(1, 1, 16_000, 24, &twentyfour)), expected);
    let whole = bytes(&|part| ((part * 2_147_483_648.0) as i32).to_le_bytes().to_vec());
    assert_eq!(samples(&wav(1, 1, 16_000, 32, &whole)), expected);
    let float = bytes(&|part| (part as f32).to_le_bytes().to_vec());
    assert_eq!(samples(&wav(3, 1, 16_000, 32, &float)), expected);
    let double = bytes(&|part| part.to_le_bytes().to_vec());
    assert_eq!(samples(&wav(3, 1, 16_000, 64, &double)), expected);
    // Two channels are one in the middle.
    let stereo = sixteen(&[100, 300, -7, 7]);
    assert_eq!(samples(&wav(1, 2, 16_000, 16, &stereo)), Ok(vec![200, 0]));
    // What is no number is silence.
    let odd: Vec<u8> =
        [f32::NAN, f32::INFINITY, 9.0].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(samples(&wav(3, 1, 16_000, 32, &odd)), Ok(vec![0, 0, 32_767]));
}

#[test]
fn other_rates_keep_what_can_be_heard_and_drop_the_rest() {
    for rate in [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 44_056] {
        let given = tone(rate, 440.0, 0.3);
        let found = samples(&wav(1, 1, rate, 16, &sixteen(&given))).expect("heard");
        let exact = tone(16_000, 440.0, 0.3);
        assert!(found.len().abs_diff(exact.len()) <= 1, "{rate}: {}", found.len());
        // The filter's length away from the ends.
        let inside = 200..exact.len() - 200;
        let worst = found[inside.clone()].iter().zip(&exact[inside]).map(|(a, b)| a.abs_diff(*b));
        let worst = worst.max().expect("some");
        assert!(worst <= 12, "{rate}: {worst}");
    }
    // Above what the lower rate holds nothing folds back.
    let given = tone(48_000, 11_000.0, 0.3);
    let found = samples(&wav(1, 1, 48_000, 16, &sixteen(&given))).expect("heard");
    let loudest = found[200..found.len() - 200].iter().map(|sample| sample.unsigned_abs()).max();
    assert!(loudest.expect("some") <= 4, "{loudest:?}");
}

#[test]
fn packed_files_are_heard() {
    let exact = tone(16_000, 440.0, 0.2);
    for name in ["sound.mp3", "sound.flac", "sound.ogg", "sound.m4a"] {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let file = std::fs::read(std::path::Path::new(path).join(name)).expect("a fixture");
        let found = samples(&file).expect("heard");
        // Coders add silence at both ends: two frames of AAC at the most.
        let length = exact.len() - 100..exact.len() + 2_000;
        assert!(length.contains(&found.len()), "{name}: {}", found.len());
        // Somewhere in it is the tone, as loud as it was.
        let loud = |samples: &[i16]| samples.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>();
        let (found, exact) = (loud(&found), loud(&exact));
        assert!((0.8..1.2).contains(&(found / exact)), "{name}: {found} {exact}");
        assert_eq!(samples_while(&file, &|| false), Err(SoundError::GivenUp));
        for cut in [3, 40, file.len() / 2] {
            // Refused or shorter: whatever it is, it ends.
            let _heard = samples(&file[..cut]);
        }
        let mut damaged = file.clone();
        damaged[20..].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
        let _heard = samples(&damaged);
    }
}

#[test]
fn sounds_one_after_the_other_are_all_heard() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sound.ogg");
    let one = std::fs::read(path).expect("a fixture");
    let single = samples(&one).expect("heard").len();
    let double = samples(&[one.clone(), one].concat()).expect("heard").len();
    // Coders add and cut silence at the ends.
    assert!(double > single + single / 2, "{single} {double}");
}

#[test]
fn damaged_files_are_refused_in_words() {
    let good = wav(1, 1, 16_000, 16, &sixteen(&[1, 2, 3]));
    let said = |file: &[u8]| samples(file).expect_err("refused").to_string();
    for (file, part) in [
        (b"".to_vec(), "no sound that is read"),
        (b"hello".to_vec(), "no sound that is read"),
        (good[..30].to_vec(), "cut short"),
        (good[..36].to_vec(), "no data"),
        ([&good[..12], &good[36..]].concat(), "before their format"),
        (wav(7, 1, 16_000, 8, &[1]), "kind 7"),
        (wav(1, 1, 16_000, 20, &[1]), "20 bits"),
        (wav(1, 0, 16_000, 16, &[1]), "0 channels"),
        (wav(1, 99, 16_000, 16, &[1]), "99 channels"),
        (wav(1, 1, 0, 16, &[1, 2]), "0 samples"),
        (wav(1, 1, 44_101, 16, &[1, 2]), "44101 samples"),
        (wav(1, 1, u32::MAX, 16, &[1, 2]), "samples a second"),
        (wav(1, 1, 16_000, 16, &[]), "no sound in"),
        (wav(1, 1, 16_000, 16, &[1]), "no sound in"),
        (wav(1, 1, 16_000, 8, &vec![128; 57_700_000]), "longer than 3600"),
    ] {
        let said = said(&file);
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut padded = good.clone();
    padded[32] = 4;
    assert!(said(&padded).contains("frames of 4 bytes"), "{}", said(&padded));
    // Sizes that a pipe left open, and chunks that nobody knows.
    let mut open = good.clone();
    open[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(samples(&open), Ok(vec![1, 2, 3]));
    open[40..44].copy_from_slice(&[0; 4]);
    assert_eq!(samples(&open), Ok(vec![1, 2, 3]));
    let odd = [&good[..12], b"LIST\x03\0\0\0abc\0", &good[12..]].concat();
    assert_eq!(samples(&odd), Ok(vec![1, 2, 3]));
}
