//! Jobs of federated rounds, as a person checks them before anybody trains.

use std::fs;

use anyhow::ensure;
use selvedge_tests::{Deadline, places, process, scenario};

const DATA: &str = "\
[[data]]
name = \"line3\"
kind = \"csv\"
path = \"PATH\"
label = \"state\"
values = [\"heat\", \"humidity\"]
classes = [\"ok\", \"worn\"]
scale = 100.0
";

const STATES: &str = "heat,humidity,state\n20,41,ok\n21,40,ok\n64,12,worn\n61,14,worn\n";

const JOB: &str = "\
name = \"wear\"
data = \"line3\"
rounds = 10
min_clients = 3
[model]
shape = { flat = 2 }
classes = 2
hidden = [{ dense = 8 }]
[training]
epochs = 1
batch = 4
learning_rate = 0.1
[privacy]
noise = 4.0
norm = 1.0
delta = 1e-5
epsilon = 9.0
";

#[test]
fn a_job_is_checked_against_this_nodes_data_and_mesh() {
    scenario(|s| {
        let home = s.path("alone");
        fs::create_dir_all(&home)?;
        let states = s.path("states.csv");
        fs::write(&states, STATES)?;
        let job = s.path("job.toml");
        let check = |text: &str| {
            fs::write(&job, text)?;
            let words = ["fed", "check", &job.display().to_string(), "--home"];
            let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            words.push(home.display().to_string());
            process::run(&places::selvedge()?, &words, None, &[], Deadline::patient())
        };
        s.step("a node without the data would not train, and is told how it could");
        let told = check(JOB)?.success()?;
        ensure!(told.contains("has no 'line3'") && told.contains("config.toml"), "{told}");

        s.step("its data are read");
        let data = DATA.replace("PATH", &states.display().to_string());
        fs::write(home.join("config.toml"), &data)?;
        let told = check(JOB)?.success()?;
        let is_good = told.contains("the job file of 'wear' is good");
        ensure!(is_good && told.contains("4 examples"), "{told}");
        ensure!(told.contains("for a client in all rounds, of 9.00"), "{told}");
        let short = check(&JOB.replace("epsilon = 9.0", "epsilon = 2.0"))?.success()?;
        ensure!(short.contains("may spend 2.00: it leaves after"), "{short}");

        s.step("data that do not fit, and jobs that cannot be, are refused by name");
        let wider = check(&JOB.replace("flat = 2", "flat = 3"))?.failure()?;
        ensure!(wider.contains("'line3' does not fit"), "{wider}");
        let wrong = check(&JOB.replace("rounds = 10", "rounds = 0"))?.failure()?;
        ensure!(wrong.contains("10000 rounds"), "{wrong}");
        fs::write(&states, "heat,humidity,state\n20,41,ok\n21,wet,ok\n")?;
        let unread = check(JOB)?.failure()?;
        ensure!(unread.contains("wet") || unread.contains("line 3"), "{unread}");

        s.step("a mesh that is too small for the anchors");
        let node = s.node("solo").up(s, &[])?;
        let few = node.cli(&["fed", "check", &job.display().to_string()])?.failure()?;
        ensure!(few.contains("5 anchors") && few.contains("has 1 members"), "{few}");
        Ok(())
    });
}
