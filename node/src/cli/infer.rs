//! The command line of asking learned models, and models that see.

use clap::Args;

const INFER_NOTES: &str = "\
Examples:
  selvedge infer wear --input states.csv --columns heat,humidity --scale 100 --classes ok,worn
  echo \"0.91,0.13\" | selvedge infer wear --input -
  selvedge infer digits --input pixels.json --json
  selvedge infer welds --image seam.png --classes crack,whole
  selvedge infer vit-base --image cat.jpg
  selvedge infer clip-vit --image cat.jpg --labels \"a photo of a cat,a photo of a dog\"

With --image the model is one that tells classes of pictures, or, with --labels, which of some texts
a picture shows: for each picture the likeliest, with their probabilities, go to standard output.
Or it is one that a job learned from images: each picture is read as training read them, and has to
have their size unless --resize scales it, which is right where the nodes' [[data]] does.

With --input the model is one that a job of learning makes (`selvedge fed status` lists the jobs);
each node of the mesh has its newest version. A row of the file is one example: as many numbers as
the job's model takes, of an image channel by channel and row by row. CSV may begin with a line of
names; JSON is a list of lists of numbers.

Values must come as training read them. Tables were divided by the `scale` of the nodes' [[data]],
which --scale does here too; bytes of images were divided by 255, so that they are 0 to 1, which
--image does here.

For each row its class (counted from 0, or by --classes) and the probability of that class go to
standard output, which version of the model answered to standard error.";

#[derive(Debug, Args)]
#[command(after_help = INFER_NOTES)]
pub(crate) struct Infer {
    /// The model: the name of a job, or of a model that sees
    pub(crate) name: String,
    /// A file of rows in CSV or JSON; `-` reads standard input
    #[arg(long, short, value_name = "FILE", required_unless_present = "image")]
    pub(crate) input: Option<String>,
    /// A picture, PNG or JPEG; may be given several times
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["input", "columns", "scale"])]
    pub(crate) image: Vec<String>,
    /// The texts that are compared with each picture, by a model that does
    #[arg(long, value_name = "TEXTS", value_delimiter = ',', requires = "image")]
    pub(crate) labels: Vec<String>,
    /// Scale pictures to the size that a learned model takes
    #[arg(long, requires = "image")]
    pub(crate) resize: bool,
    /// The columns of a CSV to take, in the order of the model [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Divide every value by this, as 255 for grey levels
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(crate) scale: f32,
    /// What the classes are called, all of them, in the order of the job's data
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) classes: Vec<String>,
    /// The version that must answer, which is its rounds [default: the newest]
    #[arg(long, value_name = "N", conflicts_with = "image")]
    pub(crate) version: Option<u64>,
    /// Print JSON, with the probabilities of all classes, or of a picture's likeliest
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask this API [default: this home's running node]
    #[arg(long, value_name = "URL", env = "SELVEDGE_API")]
    pub(crate) api: Option<String>,
    /// API key, for an API that needs one
    #[arg(long, value_name = "KEY", env = "SELVEDGE_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
}
