// SPDX-License-Identifier: GPL-2.0-only
/*
 * workload sort|map|stream MIB: works on MIB of memory, then compares every byte
 * of it with what it must be. Prints the seconds that the work took and the
 * number of wrong words; ends with 1 when there are any.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

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

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint64_t (*run)(uint64_t *words, uint64_t count, double *took);
	} workloads[] = { { "sort", sort }, { "map", map }, { "stream", stream } };
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
		printf("%.3f %llu\n", took, (unsigned long long)wrong);
		return wrong != 0;
	}
	fprintf(stderr, "usage: workload sort|map|stream MIB\n");
	return 2;
}
