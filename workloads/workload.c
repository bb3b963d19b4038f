// SPDX-License-Identifier: GPL-2.0-only
/*
 * workload NAME MIB: works on MIB of memory, then compares every byte of it with
 * what it must be. Prints the seconds that the work took, the number of wrong words
 * and a digest of the result, which is the same in each run; ends with 1 when there
 * are wrong words.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* Of the result, where comparing with what it must be does not say all of it. */
static uint64_t digest;

/* A different value for each number, and the same in each run. */
static uint64_t value_of(uint64_t number)
{
	number += 0x9e3779b97f4a7c15;
	number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
	number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
	return number ^ (number >> 31);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* The smaller side first, so it is never deeper than the bits of the count. */
static void quicksort(uint64_t *first, uint64_t *last)
{
	while (first < last) {
		uint64_t pivot = first[(last - first) / 2];
		uint64_t *low = first, *high = last;

		while (low <= high) {
			while (*low < pivot)
				low++;
			while (*high > pivot)
				high--;
			if (low <= high) {
				uint64_t swap = *low;

				*low++ = *high;
				*high-- = swap;
			}
		}
		if (high - first < last - low) {
			quicksort(first, high);
			first = low;
		} else {
			quicksort(low, last);
			last = high;
		}
	}
}

/* In order, and the same words as before by three sums over all of their bits. */
static uint64_t sort(uint64_t *words, uint64_t count, double *took)
{
	uint64_t sum = 0, mixed = 0, exclusive = 0, wrong = 0, i;
	double start;

	for (i = 0; i < count; i++) {
		words[i] = value_of(i);
		sum += words[i];
		mixed += value_of(words[i]);
		exclusive ^= words[i];
	}
	start = now();
	quicksort(words, words + count - 1);
	*took = now() - start;
	for (i = 0; i < count; i++) {
		sum -= words[i];
		mixed -= value_of(words[i]);
		exclusive ^= words[i];
		wrong += i && words[i - 1] > words[i];
	}
	return wrong + (sum || mixed || exclusive);
}

#define VALUE_WORDS 31

struct entry {
	uint64_t key;
	uint64_t value[VALUE_WORDS];
};

static struct entry *find(struct entry *entries, uint64_t places, uint64_t key)
{
	uint64_t place = value_of(key) % places;

	while (entries[place].key && entries[place].key != key)
		place = (place + 1) % places;
	return &entries[place];
}

/* The value of a key that was changed so often; of none, zeros. */
static uint64_t wrong_words(const struct entry *entry, uint64_t changes)
{
	uint64_t wrong = 0, i;

	for (i = 0; i < VALUE_WORDS; i++)
		wrong += entry->value[i] !=
			(entry->key ? value_of(entry->key * VALUE_WORDS + i) + changes : 0);
	return wrong;
}

/* Two thirds full; in an order without locality all keys are put in, then looked up and changed. */
static uint64_t map(uint64_t *words, uint64_t count, double *took)
{
	struct entry *entries = (struct entry *)words;
	uint64_t places = count / (VALUE_WORDS + 1), keys = places / 3 * 2, wrong = 0, found = 0, i, j;
	double start;

	memset(entries, 0, places * sizeof(*entries));
	start = now();
	for (i = 1; i <= keys; i++) {
		struct entry *entry = find(entries, places, i);

		entry->key = i;
		for (j = 0; j < VALUE_WORDS; j++)
			entry->value[j] = value_of(i * VALUE_WORDS + j);
	}
	for (i = 1; i <= keys; i++) {
		struct entry *entry = find(entries, places, i);

		wrong += entry->key != i;
		wrong += wrong_words(entry, 0);
		for (j = 0; j < VALUE_WORDS; j++)
			entry->value[j]++;
	}
	*took = now() - start;
	for (i = 0; i < places; i++) {
		found += !!entries[i].key;
		wrong += wrong_words(&entries[i], 1);
	}
	return wrong + (found != keys);
}

#define ROUNDS 2

/* a = b + 3 c, b = c + a, c = a: rounds over three arrays. */
static uint64_t stream(uint64_t *words, uint64_t count, double *took)
{
	uint64_t length = count / 3, wrong = 0, i;
	uint64_t *a = words, *b = a + length, *c = b + length;
	double start;
	int round;

	for (i = 0; i < length; i++) {
		a[i] = 0;
		b[i] = value_of(i);
		c[i] = value_of(~i);
	}
	start = now();
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < length; i++)
			a[i] = b[i] + 3 * c[i];
		for (i = 0; i < length; i++)
			b[i] = c[i] + a[i];
		for (i = 0; i < length; i++)
			c[i] = a[i];
	}
	*took = now() - start;
	for (i = 0; i < length; i++) {
		uint64_t x = 0, y = value_of(i), z = value_of(~i);

		for (round = 0; round < ROUNDS; round++) {
			x = y + 3 * z;
			y = z + x;
			z = x;
		}
		wrong += (a[i] != x) + (b[i] != y) + (c[i] != z);
	}
	return wrong;
}

#define DIMENSIONS 16
#define CLUSTERS 16
#define KMEANS_ROUNDS 4

static uint64_t distance(const uint16_t *a, const uint16_t *b)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < DIMENSIONS; i++) {
		int64_t apart = (int64_t)a[i] - b[i];

		sum += apart * apart;
	}
	return sum;
}

static unsigned int nearest(const uint16_t *point, uint16_t centers[CLUSTERS][DIMENSIONS])
{
	uint64_t least = UINT64_MAX;
	unsigned int best = 0, i;

	for (i = 0; i < CLUSTERS; i++) {
		uint64_t apart = distance(point, centers[i]);

		if (apart < least) {
			least = apart;
			best = i;
		}
	}
	return best;
}

/* Points of 16 whole coordinates, so that every sum is exact, and the cluster of each. */
static uint64_t kmeans(uint64_t *words, uint64_t count, double *took)
{
	const uint64_t per_point = DIMENSIONS * sizeof(uint16_t) / sizeof(uint64_t);
	uint64_t points = count * sizeof(uint64_t) / (DIMENSIONS * sizeof(uint16_t) + 1);
	uint8_t *clusters = (uint8_t *)(words + points * per_point);
	uint16_t centers[CLUSTERS][DIMENSIONS], used[CLUSTERS][DIMENSIONS];
	uint64_t wrong = 0, i, j;
	double start;
	int round;

	for (i = 0; i < points * per_point; i++)
		words[i] = value_of(i);
	memcpy(centers, words, sizeof(centers));
	start = now();
	for (round = 0; round < KMEANS_ROUNDS; round++) {
		uint64_t sums[CLUSTERS][DIMENSIONS] = { 0 }, sizes[CLUSTERS] = { 0 };

		memcpy(used, centers, sizeof(used));
		for (i = 0; i < points; i++) {
			const uint16_t *point = (uint16_t *)(words + i * per_point);
			unsigned int cluster = nearest(point, centers);

			clusters[i] = cluster;
			sizes[cluster]++;
			for (j = 0; j < DIMENSIONS; j++)
				sums[cluster][j] += point[j];
		}
		for (i = 0; i < CLUSTERS; i++)
			for (j = 0; j < DIMENSIONS && sizes[i]; j++)
				centers[i][j] = sums[i][j] / sizes[i];
	}
	*took = now() - start;
	for (i = 0; i < points * per_point; i++)
		wrong += words[i] != value_of(i);
	for (i = 0; i < points; i++)
		wrong += clusters[i] != nearest((uint16_t *)(words + i * per_point), used);
	for (i = 0; i < CLUSTERS; i++)
		for (j = 0; j < DIMENSIONS; j++)
			digest = value_of(digest ^ centers[i][j]);
	return wrong;
}

#define EDGES 8
#define RANK_ROUNDS 3
#define RANK_ONE (1 << 20)

/* Towards the first ones: some vertices have many edges. */
static uint32_t target(uint64_t edge, uint64_t vertices)
{
	uint64_t value = value_of(edge), a = (uint32_t)value % vertices, b = (value >> 32) % vertices;

	return a < b ? a : b;
}

/* In whole numbers none of which is lost: each gives 85 % along its edges, and the rest to all. */
static uint64_t pagerank(uint64_t *words, uint64_t count, double *took)
{
	uint64_t vertices = count / (EDGES / 2 + 2), total = 0, wrong = 0, i, j;
	uint32_t *edges = (uint32_t *)words;
	uint64_t *ranks = words + vertices * EDGES / 2, *next = ranks + vertices;
	double start;
	int round;

	for (i = 0; i < vertices * EDGES; i++)
		edges[i] = target(i, vertices);
	for (i = 0; i < vertices; i++)
		ranks[i] = RANK_ONE;
	start = now();
	for (round = 0; round < RANK_ROUNDS; round++) {
		uint64_t rest = 0, *swap;

		memset(next, 0, vertices * sizeof(*next));
		for (i = 0; i < vertices; i++) {
			uint64_t share = ranks[i] * 85 / 100 / EDGES;

			for (j = 0; j < EDGES; j++)
				next[edges[i * EDGES + j]] += share;
			rest += ranks[i] - share * EDGES;
		}
		for (i = 0; i < vertices; i++)
			next[i] += rest / vertices;
		next[0] += rest % vertices;
		swap = ranks;
		ranks = next;
		next = swap;
	}
	*took = now() - start;
	for (i = 0; i < vertices * EDGES; i++)
		wrong += edges[i] != target(i, vertices);
	for (i = 0; i < vertices; i++) {
		total += ranks[i];
		digest = value_of(digest ^ ranks[i]);
	}
	return wrong + (total != vertices * RANK_ONE);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint64_t (*run)(uint64_t *words, uint64_t count, double *took);
	} workloads[] = { { "sort", sort }, { "map", map }, { "stream", stream },
			{ "kmeans", kmeans }, { "pagerank", pagerank } };
	uint64_t size = argc == 3 ? strtoull(argv[2], NULL, 10) << 20 : 0, wrong;
	void *memory;
	double took;
	size_t i;

	for (i = 0; size && i < sizeof(workloads) / sizeof(*workloads); i++) {
		if (strcmp(workloads[i].name, argv[1]))
			continue;
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED) {
			perror("mmap");
			return 2;
		}
		wrong = workloads[i].run(memory, size / sizeof(uint64_t), &took);
		printf("%.3f %llu %016llx\n", took, (unsigned long long)wrong,
		       (unsigned long long)digest);
		return wrong != 0;
	}
	fprintf(stderr, "usage: workload sort|map|stream|kmeans|pagerank MIB\n");
	return 2;
}
