//! What has been said of a file to others stands after the power failed.

use syncagent_testkit::sim::dice::Dice;
use syncagent_testkit::sim::disk::Fault;

use super::two::{Two, make_dir, rename, set_mode, shown, shown_on_drive, write};

#[tokio::test]
async fn what_was_set_of_a_file_outlives_the_power() {
    for seed in 0..8 {
        let mut two = Two::with(|at| write(at, "a", "text")).await;
        let desktop = two.desktop.folder.clone();
        two.at_desktop(|at| set_mode(at, "a", 0o755)).await;
        two.world.sync(&mut two.laptop).await.unwrap();
        two.drive.power_cut(&mut Dice::new(seed, "power"));
        let left = shown(&desktop);
        two.start();
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(found, (left.clone(), left), "power cut {seed}");
    }
}

#[tokio::test]
async fn a_move_that_was_taken_in_outlives_the_power() {
    for (call, seed) in (0..60).flat_map(|call| (0..4).map(move |seed| (call, seed))) {
        let mut two = Two::with(|at| {
            make_dir(at, "d");
            write(at, "a", "text");
        })
        .await;
        two.settle().await;
        two.at_desktop(|at| rename(at, "a", "d/b")).await;
        two.killed_once(|two| two.on_drive().contains_key("d/b"))
            .await;
        two.start();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        two.drive.power_cut(&mut Dice::new(seed, "power"));
        two.start();
        two.settle().await;
        let found = two.names_at_desktop();
        assert_eq!(found, ["d"], "killed at {call}, power cut {seed}");
    }
}
