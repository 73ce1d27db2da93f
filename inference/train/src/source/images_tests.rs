use super::*;

const GREY: &[u8] = include_bytes!("../../samples/grey.png");
const COLOUR: &[u8] = include_bytes!("../../samples/colour.png");
const RAMP: &[u8] = include_bytes!("../../samples/ramp.jpg");

/// A directory of a test, taken away with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, files: &[(&str, &[u8])]) -> std::io::Result<Self> {
        let name = format!("selvedge-images-{name}-{}", std::process::id());
        let scratch = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&scratch.0)?;
        for (path, content) in files {
            let path = scratch.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(&scratch.0))?;
            std::fs::write(path, content)?;
        }
        Ok(scratch)
    }

    fn read(&self, classes: &[&str], shape: Shape) -> Result<Examples, TrainError> {
        let classes = classes.iter().map(|&name| name.to_owned()).collect();
        let folder = Images { path: self.0.clone(), classes, resize: false };
        read(&folder, &Schema { shape, classes: 3 })
    }

    fn told(&self, classes: &[&str], shape: Shape) -> String {
        let read = self.read(classes, shape);
        read.err().map(|error| error.to_string()).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

const SMALL: Shape = Shape::Image { channels: 1, height: 3, width: 4 };
const NAMES: [&str; 3] = ["crack", "good", "pore"];

#[test]
fn a_class_that_a_node_lacks_moves_no_other() -> anyhow::Result<()> {
    let files: &[(&str, &[u8])] =
        &[("pore/b.png", GREY), ("crack/z.png", GREY), ("pore/a.pgm", GREY), (".hidden", b"x")];
    let scratch = Scratch::new("classes", files)?;
    let examples = scratch.read(&NAMES, SMALL)?;
    assert_eq!(examples.labels(), [0, 2, 2]);
    assert_eq!(examples.row(0)[..3], [0.0, 1.0, 51.0 / 255.0]);
    Ok(())
}

#[test]
fn folders_are_numbers_where_nothing_is_named() -> anyhow::Result<()> {
    let scratch = Scratch::new("numbers", &[("2/a.png", GREY), ("0/a.png", GREY)])?;
    assert_eq!(scratch.read(&[], SMALL)?.labels(), [0, 2]);
    let twice = Scratch::new("twice", &[("2/a.png", GREY), ("02/a.png", GREY)])?;
    assert!(twice.told(&[], SMALL).contains("the same class as"), "{}", twice.told(&[], SMALL));
    let named = Scratch::new("named", &[("good/a.png", GREY)])?;
    let told = named.told(&[], SMALL);
    assert!(told.contains("good") && told.contains("called 0 to 2"), "{told}");
    Ok(())
}

#[test]
fn what_does_not_fit_is_told_with_its_file() -> anyhow::Result<()> {
    let told = |name: &str, file: &str, content: &[u8]| -> anyhow::Result<String> {
        let scratch = Scratch::new(name, &[("good/0.png", GREY), (file, content)])?;
        Ok(scratch.told(&NAMES, SMALL))
    };
    let size = told("size", "good/big.jpg", RAMP)?;
    assert!(size.contains("big.jpg: 16 x 8 pixels, and the job's images have 4 x 3"), "{size}");
    assert!(size.contains("resize = true"), "{size}");
    let text = told("text", "good/notes.txt", b"hello")?;
    assert!(text.contains("notes.txt: not a PNG, JPEG or PNM image"), "{text}");
    assert!(told("loose", "label.csv", b"a,b")?.contains("label.csv: not a folder"));
    assert!(told("nested", "good/more/a.png", GREY)?.contains("more: not a file"));
    assert!(told("unknown", "rust/a.png", GREY)?.contains("'classes' in [[data]] does not list"));
    let empty = Scratch::new("empty", &[("good/.keep", b"")])?;
    assert!(empty.told(&NAMES, SMALL).contains("no images"));
    assert!(empty.told(&NAMES, Shape::Flat(12)).contains("a shape of 1 channel"));
    let four = Shape::Image { channels: 4, height: 3, width: 4 };
    assert!(empty.told(&NAMES, four).contains("1 channel"));
    assert!(empty.told(&NAMES[..2], SMALL).contains("2 classes are named, and the job has 3"));
    Ok(())
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() -> anyhow::Result<()> {
    use std::os::unix::fs::symlink;
    let outside = Scratch::new("outside", &[("good/a.png", GREY)])?;
    let scratch = Scratch::new("links", &[("good/a.png", GREY)])?;
    symlink(outside.0.join("good/a.png"), scratch.0.join("good/b.png"))?;
    assert!(scratch.told(&NAMES, SMALL).contains("b.png: a link"));
    std::fs::remove_file(scratch.0.join("good/b.png"))?;
    symlink(outside.0.join("good"), scratch.0.join("pore"))?;
    assert!(scratch.told(&NAMES, SMALL).contains("pore: a link"));
    // What became one after it was listed.
    assert!(open(&scratch.0.join("pore")).is_err());
    Ok(())
}

#[test]
fn more_than_fits_is_refused_before_it_is_read() -> anyhow::Result<()> {
    let huge = Shape::Image { channels: 1, height: 1 << 14, width: 1 << 14 };
    let scratch = Scratch::new("many", &[("good/a.png", COLOUR), ("good/b.png", COLOUR)])?;
    assert!(scratch.told(&NAMES, huge).contains("more than the limit of 1"));
    Ok(())
}
