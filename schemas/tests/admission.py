"""Which records of a log are applied, and which are void? Their headers alone tell (here as dumps show them)."""
import hashlib, json, sys

def judge(header, applied, written):
    if header["id"] in applied:
        return "repeated"
    after = header["after"]
    if after is not None and applied.get(after["id"]) != after["copy"]:
        return "lost_predecessor"
    for read in header["reads"]:
        last = written.get(read["key"])  # (Lsn, record id) of the last applied record that wrote the key
        seen = ["absent"] if last is None else [{"at": last[0]}, {"by": last[1]}]
        if read["expect"] not in seen:
            return "stale_read"
    return None

vectors, judged = json.load(open(sys.argv[1])), 0
for key in vectors["keys"]:
    assert key["key"] == bytes([key["tag"]]).hex() + hashlib.sha256(key["name"].encode()).hexdigest()[:32], key
for case in vectors["cases"]:
    applied, written = {}, {}
    for record in case["records"]:
        header = record["header"]
        void = judge(header, applied, written)
        assert void == record["void"], (case["name"], record["lsn"], void)
        if void is None:
            applied[header["id"]] = header["copy"]
            written.update({key: (record["lsn"], header["id"]) for key in header["writes"]})
        judged += 1
print(judged, "records judged as expected")
