// One thread: 123 blocks of 8 B stay; 45 of 1001 B and 6 zeroed ones of 7 x 143 B are freed before 7 of 777 B are made.
// totals: allocated=57474/181 freed=51051/51 current=6423/130 peak=52035/174
#include <stdlib.h>

static void *kept[123], *passing[45], *zeroed[6], *last[7];

int main(void) {
    for (int i = 0; i < 123; i++)
        kept[i] = malloc(8); //@ allocated=984/123 live=984/123 peak=984/123
    for (int i = 0; i < 45; i++)
        passing[i] = malloc(1001); //@ allocated=45045/45 peak=45045/45
    for (int i = 0; i < 6; i++)
        zeroed[i] = calloc(7, 143); //@ allocated=6006/6 peak=6006/6
    for (int i = 0; i < 45; i++)
        free(passing[i]);
    for (int i = 0; i < 6; i++)
        free(zeroed[i]);
    for (int i = 0; i < 7; i++)
        last[i] = malloc(777); //@ allocated=5439/7 live=5439/7
    return 0;
}
