//! What layers may cost: memory with the largest windows, and bombs in earnest.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use sealift::oci::{Digest, Hasher};

use crate::made::{GZIP, Layer, ZSTD, archive, gzip, gzip_at, image, zeros_frame, zstd};
use crate::{MIB, World, said};

/// What `--help` promises.
const LIMIT_KIB: u64 = 160 * 1024;

/// What a zstd window fills.
const BLOCK: usize = 128 * 1024;

/// Runs it to its end; the largest resident size that it reached, in KiB, and what it printed.
fn peak_memory(mut command: Command) -> (u64, std::process::Output) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    (peak, child.wait_with_output().unwrap())
}

/// The digest of so many blocks of zeros.
fn zeros(blocks: usize) -> String {
    let (block, mut hasher) = (vec![0; BLOCK], Hasher::sha256());
    (0..blocks).for_each(|_| hasher.update(&block));
    hasher.finish().to_string()
}

/// A frame for each window, of more than the window holds.
fn windows(logs: &[u8], more: usize) -> Layer {
    let blocks = |log: &u8| (1 << (log - 17)) + more;
    let bytes: Vec<u8> = logs.iter().flat_map(|log| zeros_frame(*log, blocks(log))).collect();
    Layer { media_type: ZSTD, bytes, diff_id: zeros(logs.iter().map(blocks).sum()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_with_the_largest_windows() {
    let content = archive(1, 3 * MIB);
    let mut layers = vec![
        Layer::new(GZIP, gzip(&content), &content),
        Layer::new(ZSTD, zstd(&content), &content),
        // What the allocator would keep of these is there beside the next.
        windows(&[20, 21, 22, 23, 24, 25, 26, 27], 1),
        windows(&[27, 26, 25, 24, 23, 22, 21, 20], 2),
        windows(&[24, 24, 25, 24, 27], 3),
    ];
    // The largest first, so these are under way when the others begin.
    layers.extend((4..7).map(|more| windows(&[23; 4], more)));
    layers.extend((7..10).map(|more| windows(&[27], more)));
    layers.extend((10..13).map(|more| windows(&[25], more)));
    let world = World::of(&[("team/windows".into(), image(&layers))]).await;
    let bundle = world.export(50 * MIB as u64).await;
    let key = world.path("exporter.pub");
    let rows: [(&str, PathBuf, Vec<&str>); 2] = [
        ("bundle", bundle, vec!["--deep", "--key", key.to_str().unwrap()]),
        ("store", world.store.root().to_owned(), vec!["--deep"]),
    ];
    for (name, folder, more) in rows {
        let (peak, output) = peak_memory(world.command(&[folder], &more));
        let said = said(&output);
        assert!(
            output.status.success() && said.contains(&format!("{} layers unpacked", layers.len())),
            "{name}: {said}"
        );
        assert!(peak > 128 * 1024, "{name}: the windows were not filled: {peak} KiB");
        assert!(peak <= LIMIT_KIB, "{name} took {peak} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "unpacks some 25 GiB of zeros"]
async fn bombs_cost_seconds_and_the_others_are_checked() {
    let content = archive(1, MIB);
    let gib = (1 << 30) / BLOCK;
    // The best that gzip can do: 1000:1.
    let member = gzip_at(flate2::Compression::best(), &vec![0; 64 * MIB]);
    let bomb = |media_type, bytes| Layer { media_type, bytes, diff_id: Digest::of(b"").to_string() };
    let rows = [
        ("1 TiB of zstd", bomb(ZSTD, zeros_frame(23, 1024 * gib)), "bytes come out of it: it is taken for a bomb"),
        (
            "6 GiB of zstd in one window",
            bomb(ZSTD, zeros_frame(27, 6 * gib)),
            "bytes come out of it: it is taken for a bomb",
        ),
        (
            "6 GiB of zstd in frames",
            bomb(ZSTD, zeros_frame(17, 8).repeat(6 * gib / 8)),
            "bytes come out of it: it is taken for a bomb",
        ),
        ("10 GiB of gzip", bomb(GZIP, member.repeat(160)), "bytes come out of it: it is taken for a bomb"),
        ("gzip in gzip", Layer::new(GZIP, gzip(&member.repeat(160)), &member.repeat(160)), ""),
    ];
    let mut images: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(number, (_, layer, _))| (format!("bomb/{number}"), image(std::slice::from_ref(layer))))
        .collect();
    images.push(("good".into(), image(&[Layer::new(GZIP, gzip(&content), &content)])));
    let world = World::of(&images).await;
    let bundle = world.export(100 * MIB as u64).await;
    let key = world.path("exporter.pub");
    let (peak, output) = peak_memory(world.command(&[bundle], &["--deep", "--key", key.to_str().unwrap()]));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(peak <= LIMIT_KIB, "{peak} KiB");
    assert!(said.contains("2 layers unpacked"), "the good one, and what a nested one holds: {said}");
    for (name, layer, says) in rows {
        let at = said.find(&Digest::of(&layer.bytes).to_string());
        match at {
            Some(at) => {
                assert!(!says.is_empty() && said[at..].lines().nth(1).unwrap().contains(says), "{name}: {said}")
            }
            None => assert!(says.is_empty(), "{name}: {said}"),
        }
    }
}
