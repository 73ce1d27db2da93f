"""Writes the tables of this folder with pyarrow: python3 tables.py"""

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 300
heat = [at / 4 for at in range(ROWS)]
table = pa.table(
    {
        "state": pa.array(["worn" if at % 3 == 0 else "ok" for at in range(ROWS)]),
        "heat": pa.array(heat, pa.float64()),
        "hum": pa.array([at % 7 for at in range(ROWS)], pa.int32()),
        "fan": pa.array([at % 2 == 0 for at in range(ROWS)]),
        "count": pa.array([(1 << 32) - 1 - at for at in range(ROWS)], pa.uint32()),
        "short": pa.array([-(at % 100) for at in range(ROWS)], pa.int8()),
        "long": pa.array([at << 33 for at in range(ROWS)], pa.int64()),
        "soft": pa.array(heat, pa.float32()),
        "grade": pa.array([at % 2 for at in range(ROWS)], pa.int64()),
        "when": pa.array(range(ROWS), pa.timestamp("ms")),
        "price": pa.array([None] * ROWS, pa.decimal128(9, 2)),
        "gaps": pa.array([None if at == 211 else 1.0 for at in range(ROWS)]),
        "odd": pa.array([float("nan") if at == 5 else 1.0 for at in range(ROWS)]),
        "tags": pa.array([["a"]] * ROWS, pa.list_(pa.string())),
        "inner": pa.array([{"x": 1}] * ROWS),
    }
)
# Three groups of rows.
for packed in ("none", "snappy", "gzip", "zstd"):
    pq.write_table(table, f"{packed}.parquet", row_group_size=128, compression=packed)
pq.write_table(
    table,
    "second.parquet",
    data_page_version="2.0",
    row_group_size=128,
    use_dictionary=["state"],
    column_encoding={"heat": "BYTE_STREAM_SPLIT", "hum": "PLAIN"},
)
pq.write_table(
    table.select(["state", "heat", "hum"]),
    "delta.parquet",
    use_dictionary=False,
    column_encoding={"hum": "DELTA_BINARY_PACKED"},
)
plain = pa.schema([("state", pa.int64(), False), ("heat", pa.float64(), False)])
pq.write_table(pa.table({"state": [1, 0], "heat": [0.5, 2.0]}, plain), "plain.parquet")

# Where the mutations of stored inputs begin: small, so that most of them change what is read.
CORPUS = "../../../tests/fuzz/corpus/file.parquet/"
small = table.slice(0, 9).select(["state", "heat", "hum"])
for packed in ("none", "snappy", "gzip"):
    pq.write_table(small, f"{CORPUS}{packed}", compression=packed, row_group_size=5)
pq.write_table(small, CORPUS + "second", data_page_version="2.0", use_dictionary=False)
pq.write_table(
    small,
    CORPUS + "split",
    use_dictionary=False,
    column_encoding={"heat": "BYTE_STREAM_SPLIT", "hum": "DELTA_BINARY_PACKED"},
)
numbers = pa.schema([("state", pa.bool_(), False), ("heat", pa.float32(), False), ("hum", pa.uint8())])
pq.write_table(
    pa.table({"state": [True, False], "heat": [0.5, 2.0], "hum": [7, None]}, numbers),
    CORPUS + "numbers",
)
nested = pa.table({"state": [1], "heat": [1.0], "hum": [2], "tags": [[{"deep": [[1]]}]]})
pq.write_table(nested, CORPUS + "nested")
